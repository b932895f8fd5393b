// Package token has the types that all other packages share: secrets that cannot be
// printed, fingerprints, connection names, token pairs, and the JSON document that a
// connection's secret contains.
//
// It can read a token but not spend one, so programs that only use tokens can import
// it safely.
package token

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
)

// redacted is the output of every way of printing a Secret.
const redacted = "[redacted]"

// Secret is text that must not appear in logs, errors, pages or tables: a
// token, an authorization code, a state, a client secret, or a document that
// contains one. The zero Secret is empty. Only Reveal returns the text.
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
// Encoding it again writes "[redacted]", so a decoded document is not re-encoded
// with its secrets by mistake.
func (s *Secret) UnmarshalText(text []byte) error {
	s.text = string(text)
	return nil
}

// Fingerprint is the first 128 bits of a secret's SHA-256, in hex (as in
// `printf %s "$TOKEN" | sha256sum | cut -c1-32`). Tokens have far more than
// 128 random bits, so fingerprints do not collide and disclose nothing.
type Fingerprint string
