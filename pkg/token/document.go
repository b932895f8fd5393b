package token

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Pair is the content of one successful answer of a token endpoint (RFC 6749
// section 5.1). RefreshToken is empty for a service account.
type Pair struct {
	AccessToken  Secret
	RefreshToken Secret
	TokenType    string        // normally "Bearer"; compared case-insensitively
	Lifetime     time.Duration // of the access token, from expires_in
	CreatedAt    time.Time     // by the server's clock; zero if the answer had none
}

// ClockTolerance is the longest time between writing an answer and saving it. If
// created_at and the time of saving differ by more, the two clocks differ.
const ClockTolerance = time.Minute

// maxSkew bounds the difference between two clocks. With a clock that is further off,
// no TLS connection works, so a created_at beyond it is not a time: it is in another
// unit, or invented.
const maxSkew = 365 * 24 * time.Hour

// ExpiresAt is the expiry that readers see: IssuedAt plus the lifetime.
func (p Pair) ExpiresAt(saved time.Time) time.Time { return p.after(p.IssuedAt(saved)) }

// EarliestExpiry counts the lifetime from the earlier of created_at and saved. Due
// times count from it: nobody knows which clock is right, and a token that expires
// before it is replaced does more harm than one that is replaced early. It may be
// before saved.
func (p Pair) EarliestExpiry(saved time.Time) time.Time {
	return p.after(saved.Add(min(0, p.ClockSkew(saved))))
}

func (p Pair) after(issued time.Time) time.Time {
	return issued.Add(p.Lifetime).UTC().Truncate(time.Second)
}

// IssuedAt is the time from which readers count expires_in: created_at, unless
// that is unknown or more than ClockTolerance before the answer was saved. In that
// case it is the later time, when the answer was saved: no reader can use a token
// that looks expired too early, and a reader that gets an expired one reads again.
func (p Pair) IssuedAt(saved time.Time) time.Time {
	if skew, known := p.skew(saved); known && skew >= -ClockTolerance {
		return p.CreatedAt
	}
	return saved
}

// ClockSkew is how far the server's clock was ahead of the clock that saved the
// answer: created_at minus saved. It includes the time that the answer took, and
// the age of a token that the server had issued before. 0 if created_at is missing or
// impossible. Beyond ClockTolerance in either direction, the clocks differ.
func (p Pair) ClockSkew(saved time.Time) time.Duration {
	skew, _ := p.skew(saved)
	return skew
}

func (p Pair) skew(saved time.Time) (_ time.Duration, known bool) {
	skew := p.CreatedAt.Sub(saved) // saturates
	if p.CreatedAt.IsZero() || skew > maxSkew || skew < -maxSkew {
		return 0, false
	}
	return skew, true
}

// Format is the number of the document form that this package writes. Within
// one number fields are added, never renamed or removed.
const Format = 1

// ErrNotDocument says that a secret's value is not a document of a known format.
var ErrNotDocument = errors.New("not a tokenturn document")

// Document is the value of a connection's secret. Programs in any language
// read connection, api_url, company_id, access_token, token_type and
// expires_at; the rest is for tokenturn itself. The refresh token is only
// inside SealedAnswer, which a reader of the secret cannot open.
type Document struct {
	Connection   Connection
	Environment  string
	APIURL       string
	CompanyID    string
	AccessToken  Secret
	TokenType    string
	CreatedAt    time.Time // from which ExpiresAt counts; see Pair.IssuedAt
	ExpiresAt    time.Time
	Epoch        int64
	Generation   int64
	Parent       Fingerprint
	Stack        string
	SealedAnswer []byte
	// These are needed in addition to rebuild the response that the document shows.
	Attempt string
	Source  string
	SavedAt time.Time
}

// HasExpiry reports whether it is known when the access token expires. It is not if no answer of
// the token endpoint has said how long its tokens live: then ExpiresAt equals CreatedAt.
func (d Document) HasExpiry() bool { return !d.ExpiresAt.Equal(d.CreatedAt) }

// document is the stored form. The field order is fixed, so equal content has equal bytes.
type document struct {
	Format       int         `json:"format"`
	Connection   Connection  `json:"connection"`
	Environment  string      `json:"environment"`
	APIURL       string      `json:"api_url"`
	CompanyID    string      `json:"company_id"`
	AccessToken  string      `json:"access_token"`
	TokenType    string      `json:"token_type"`
	CreatedAt    time.Time   `json:"created_at"`
	ExpiresAt    time.Time   `json:"expires_at"`
	Epoch        int64       `json:"epoch"`
	Generation   int64       `json:"generation"`
	Parent       Fingerprint `json:"parent"`
	Stack        string      `json:"stack"`
	SealedAnswer []byte      `json:"sealed_answer"`
	Attempt      string      `json:"attempt,omitempty"`
	Source       string      `json:"source,omitempty"`
	SavedAt      time.Time   `json:"saved_at,omitzero"`
}

// Encode returns the bytes to store. Equal documents give equal bytes, so storing a
// document twice is harmless.
func (d Document) Encode() (Secret, error) {
	bytes, err := json.Marshal(document{Format, d.Connection, d.Environment, d.APIURL, d.CompanyID,
		d.AccessToken.Reveal(), d.TokenType, d.CreatedAt.UTC(), d.ExpiresAt.UTC(), d.Epoch, d.Generation, d.Parent,
		d.Stack, d.SealedAnswer, d.Attempt, d.Source, d.SavedAt.UTC()})
	if err != nil {
		return Secret{}, fmt.Errorf("encoding document of %s: %w", d.Connection, err)
	}
	return NewSecret(string(bytes)), nil
}

// ParseDocument reads a secret's value. The error wraps ErrNotDocument and
// contains nothing of the value. Unknown fields are ignored.
func ParseDocument(value Secret) (Document, error) {
	var w document
	if err := json.Unmarshal([]byte(value.Reveal()), &w); err != nil {
		return Document{}, fmt.Errorf("%w: the value is not the JSON that tokenturn writes", ErrNotDocument)
	}
	switch {
	case w.Format != Format:
		return Document{}, fmt.Errorf("%w: its format is %d, but this program reads format %d", ErrNotDocument, w.Format,
			Format)
	case w.Connection.IsZero() || w.AccessToken == "" || w.ExpiresAt.IsZero() || w.Epoch < 0 || w.Generation < 0:
		return Document{}, fmt.Errorf("%w: connection, access_token or expires_at is missing", ErrNotDocument)
	}
	return Document{w.Connection, w.Environment, w.APIURL, w.CompanyID, NewSecret(w.AccessToken), w.TokenType,
		w.CreatedAt, w.ExpiresAt, w.Epoch, w.Generation, w.Parent, w.Stack, w.SealedAnswer, w.Attempt, w.Source,
		w.SavedAt}, nil
}

// VersionID names a stored value by its content: 48 hex digits of its SHA-256,
// which satisfies the 32 to 64 characters of Secrets Manager's
// ClientRequestToken. The same bytes always have the same id.
func VersionID(value Secret) string {
	sum := sha256.Sum256([]byte(value.Reveal()))
	return hex.EncodeToString(sum[:24])
}
