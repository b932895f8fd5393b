package rotation

import (
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Status says what kind of life a connection leads.
type Status string

const (
	Pending      Status = "pending"       // invited or registered; nobody has consented yet
	Active       Status = "active"        // has a pair that is kept fresh
	NeedsConsent Status = "needs_consent" // its pair is spent or revoked; a person must allow again
	Disconnected Status = "disconnected"  // taken out of use on purpose
)

// Record is the ledger's row for one connection: who may act, and which pair is
// current. (Epoch, Generation) only grows: a refresh raises Generation; consent,
// import and disconnect raise Epoch.
type Record struct {
	Connection token.Connection `json:"connection"`
	// Revision is opaque and changes with every write. Load fills it in, Write
	// compares it. Empty means that there is no row yet.
	Revision   string   `json:"-"`
	Stack      string   `json:"stack"`
	Epoch      int64    `json:"epoch"`
	Generation int64    `json:"generation"`
	Status     Status   `json:"status"`
	Current    *Current `json:"current,omitempty"`
	// Ancestor is the response that Current succeeded. Its bytes are kept until
	// Current is published.
	Ancestor  *ResponseKey `json:"ancestor,omitempty"`
	Published string       `json:"published,omitempty"` // version id that AWSCURRENT was put on
	Attempt   *Attempt     `json:"attempt,omitempty"`
	DueAt     time.Time    `json:"due_at,omitzero"` // when the loop next has something to do; zero: never
	Failure   *Failure     `json:"failure,omitempty"`
	Puts      []int64      `json:"puts,omitempty"` // Unix seconds of the secret store versions put in the last 24 hours, oldest first
	Pin       *Pin         `json:"pin,omitempty"`
	// Imported are the fingerprints of the refresh tokens that were ever imported.
	Imported []token.Fingerprint `json:"imported,omitempty"`
	// Residue is when the secret store must be searched for pairs of an epoch that
	// ended while somebody could still receive one; zero: nothing to search.
	// Overtaken: a refresh was open then, and not only could a code have been on its way.
	Residue   time.Time `json:"residue,omitzero"`
	Overtaken bool      `json:"overtaken,omitempty"`
	RotatedAt time.Time `json:"rotated_at,omitzero"` // when the current pair was saved
	// Expected is when a consent or an import that is under way is over. What it has
	// saved by then and not decided is found afterwards. Zero or past: none is.
	Expected time.Time `json:"expected,omitzero"`
	// ServiceAccount: the app itself is who acts, and its tokens come for its own
	// credentials (RFC 6749 section 4.4). There is no refresh token to lose.
	ServiceAccount bool `json:"service_account,omitempty"`
	// Held: an answer to the current refresh token is quarantined, so nothing goes on
	// until a person says which pair is right. Every write sets it by the responses.
	Held bool `json:"held,omitempty"`
	// Untold: nobody was told yet that it needs a consent.
	Untold bool `json:"untold,omitempty"`
}

// Current describes the pair that the connection has now.
type Current struct {
	Fingerprint token.Fingerprint `json:"fingerprint"` // of its refresh token; of a service account's, of its access token
	Response    ResponseKey       `json:"mint"`
	VersionID   string            `json:"version_id,omitempty"` // empty: imported, has no access token to publish
	SavedAt     time.Time         `json:"saved_at"`
	ExpiresAt   time.Time         `json:"expires_at,omitzero"`
}

// Attempt is the right to present one refresh token until Until. Only its
// holder may present; anybody may save what an attempt brought.
type Attempt struct {
	ID            string            `json:"id"`
	Fingerprint   token.Fingerprint `json:"fingerprint"`
	BegunAt       time.Time         `json:"begun_at"`
	Until         time.Time         `json:"until"`
	Presentations int               `json:"presentations"`     // of this token whose end was open when the attempt began, and its own
	Refused       bool              `json:"refused,omitempty"` // the issuer said invalid_grant; what is left is to look for a successor
}

// withoutLast gives what is left of the attempt once its own presentation is
// known to have spent nothing: nil, or an earlier presentation whose end is
// still open and is looked into before the token is presented again.
func (a Attempt) withoutLast(quiet time.Duration, now time.Time) *Attempt {
	if a.Presentations <= 1 {
		return nil
	}
	a.Presentations--
	a.Until = now.Add(-quiet).UTC()
	return &a
}

// Failure makes one row of the plan rest until NextAt. Other rows go on.
type Failure struct {
	Step     Step        `json:"step"`
	Class    string      `json:"class"`
	Count    int         `json:"count"` // in a row
	NextAt   time.Time   `json:"next_at"`
	Response ResponseKey `json:"mint,omitzero"` // the response that could not be decided or revoked
	Detail   string      `json:"detail,omitempty"`
}

// Pin is the identity that a connection keeps across consents. A pair of
// another identity is refused.
type Pin struct {
	Environment   string            `json:"environment"`
	Client        token.Fingerprint `json:"client"` // of the client id
	ResourceOwner string            `json:"resource_owner,omitempty"`
	Login         string            `json:"login,omitempty"` // the user's e-mail address when last seen; not compared
	Company       string            `json:"company,omitempty"`
}

// Source says how a response came to be.
type Source string

const (
	FromRefresh Source = "refresh"
	FromCode    Source = "code"
	FromImport  Source = "import"             // a pasted refresh token; there is no access token
	FromClient  Source = "client_credentials" // of a service account; there is no refresh token
)

// MintState is the stored mark of a response. All else follows from the ledger.
type ResponseState string

const (
	Saved       ResponseState = "saved"
	Quarantined ResponseState = "quarantined" // contradictory; held for a person
	Rejected    ResponseState = "rejected"    // not usable, to be revoked where possible
)

// ResponseKey identifies a response within its connection.
type ResponseKey struct {
	Epoch      int64  `json:"epoch"`
	Generation int64  `json:"generation"`
	Attempt    string `json:"attempt"`
}

// TokenResponse is an append-only record of one answer of the token endpoint, kept
// before anyone judges it. Sealed is made once and never re-encrypted, so a
// response and every copy of it are the same bytes.
type TokenResponse struct {
	Connection token.Connection  `json:"connection"`
	Key        ResponseKey       `json:"key"`
	Parent     token.Fingerprint `json:"parent,omitempty"` // Current.Fingerprint of the pair it succeeds; empty for a consent
	Source     Source            `json:"source"`
	SavedAt    time.Time         `json:"saved_at"`
	State      ResponseState     `json:"state"`
	Reason     string            `json:"reason,omitempty"` // why it is quarantined or rejected
	Sealed     []byte            `json:"sealed"`
	// Expect is the identity that a consent was asked for.
	Expect *Identity `json:"expect,omitempty"`
	// What is published besides the answer; kept here so that the document
	// is a function of the response alone.
	APIURL  string `json:"api_url,omitempty"`
	Company string `json:"company,omitempty"`
	Stack   string `json:"stack"`
}

// Identity is whose consent a pair carries. In TokenResponse.Expect and in invitations
// empty fields are not compared.
type Identity struct {
	ClientID      string `json:"client_id,omitempty"`
	ResourceOwner string `json:"resource_owner,omitempty"` // Procore's user id
	Login         string `json:"login,omitempty"`          // the user's e-mail address
	Company       string `json:"company,omitempty"`        // Procore's company id
	// Repin accepts another resource owner than the connection's pin.
	Repin bool `json:"repin,omitempty"`
}

// Event is one row of a connection's history.
type Event struct {
	At         time.Time `json:"at"`
	Kind       string    `json:"kind"` // a past participle: "decided", "rejected", "published", ...
	Epoch      int64     `json:"epoch"`
	Generation int64     `json:"generation"`
	Attempt    string    `json:"attempt,omitempty"`
	Detail     string    `json:"detail,omitempty"`
	// Spent is the refresh token that is known to be spent by what happened.
	Spent token.Fingerprint `json:"spent,omitempty"`
}

// after reports whether a comes after b in (epoch, generation) order.
func after(aEpoch, aGeneration, bEpoch, bGeneration int64) bool {
	return aEpoch > bEpoch || aEpoch == bEpoch && aGeneration > bGeneration
}

// clone copies r so deeply that changing the copy does not change r.
func (r Record) clone() Record {
	r.Current = clonePtr(r.Current)
	r.Ancestor = clonePtr(r.Ancestor)
	r.Attempt = clonePtr(r.Attempt)
	r.Failure = clonePtr(r.Failure)
	r.Pin = clonePtr(r.Pin)
	r.Puts = slices.Clone(r.Puts)
	r.Imported = slices.Clone(r.Imported)
	return r
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
