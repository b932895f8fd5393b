// Package token holds the words every other package speaks: secrets that
// cannot print themselves, fingerprints, connection names, token pairs, and the
// JSON document that a connection's secret contains.
//
// It knows how to read a token, never how to spend one, so programs that
// only consume tokens can import it safely.
package token

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
)

// redacted is what every way of printing a Secret yields.
const redacted = "[redacted]"

// Secret is text that must not appear in logs, errors, pages or tables: a
// token, an authorization code, a state, a client secret, or a document that
// contains one. The zero Secret is empty. Only Reveal gives the text back.
type Secret struct{ text string }

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text. Search for its callers to audit where secrets go.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.text == "" }

// Fingerprint identifies the secret without disclosing it.
func (s Secret) Fingerprint() Fingerprint {
	sum := sha256.Sum256([]byte(s.text))
	return Fingerprint(hex.EncodeToString(sum[:16]))
}

func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText lets a Secret be decoded from JSON or an environment variable.
// Encoding it again yields the redaction, so a decoded document is not
// accidentally re-encoded with its secrets.
func (s *Secret) UnmarshalText(text []byte) error {
	s.text = string(text)
	return nil
}

// Fingerprint is the first 128 bits of a secret's SHA-256, in hex (as in
// `printf %s "$TOKEN" | sha256sum | cut -c1-32`). Tokens carry far more than
// 128 random bits, so the fingerprint neither collides nor discloses.
type Fingerprint string
