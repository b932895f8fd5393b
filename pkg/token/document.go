package token

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Pair is what one successful answer of a token endpoint grants (RFC 6749
// section 5.1). RefreshToken is empty for a service account.
type Pair struct {
	AccessToken  Secret
	RefreshToken Secret
	TokenType    string        // normally "Bearer"; compared case-insensitively
	Lifetime     time.Duration // of the access token, from expires_in
	CreatedAt    time.Time     // by the server's clock; zero if the answer had none
}

// ClockTolerance is the longest time that an answer takes from being written to
// being saved. A larger difference between created_at and that time is one
// between two clocks.
const ClockTolerance = time.Minute

// maxSkew bounds what is taken for a difference between two clocks. A created_at
// further away than this was not written at that time by any clock that a TLS
// connection works with: it is in another unit, or made up.
const maxSkew = 365 * 24 * time.Hour

// ExpiresAt is the time that readers are told: the lifetime after IssuedAt.
func (p Pair) ExpiresAt(saved time.Time) time.Time { return p.after(p.IssuedAt(saved)) }

// EarliestExpiry counts the lifetime from the earlier of created_at and saved,
// by whichever clock that is. Due times count from it: nobody knows which clock
// is right, and a token that dies before it is replaced costs more than one
// that is replaced early. It may lie before saved.
func (p Pair) EarliestExpiry(saved time.Time) time.Time {
	return p.after(saved.Add(min(0, p.ClockSkew(saved))))
}

func (p Pair) after(issued time.Time) time.Time {
	return issued.Add(p.Lifetime).UTC().Truncate(time.Second)
}

// IssuedAt is the time from which readers count expires_in: created_at, unless
// that is more than ClockTolerance before the answer was saved or unknown. Then
// it is the later one, when the answer was saved: a token that looks dead too
// early is of no use to anybody, and a reader who meets a dead one reads again.
func (p Pair) IssuedAt(saved time.Time) time.Time {
	if skew, known := p.skew(saved); known && skew >= -ClockTolerance {
		return p.CreatedAt
	}
	return saved
}

// ClockSkew is how far the server's clock was ahead of the clock that saved the
// answer: created_at minus saved. It includes the time that the answer took, and
// the age of a token that the server has given before. 0 if created_at is
// missing or absurd. Beyond ClockTolerance, either way, the clocks disagree.
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
	// What is needed besides to rebuild the response that the document shows.
	Attempt string
	Source  string
	SavedAt time.Time
}

// document is the wire form: field order is fixed so that one content has one encoding.
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

// Encode gives the bytes to store. Equal documents give equal bytes, which is
// what makes storing them twice harmless.
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
		return Document{}, fmt.Errorf("%w: its format is %d and this program reads %d", ErrNotDocument, w.Format, Format)
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
