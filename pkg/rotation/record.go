package rotation

import (
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Status is the state of a connection.
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
	// Failures are what could not be done lately: at most one for each step and response.
	Failures []Failure `json:"failures,omitempty"`
	// Unix seconds of the secret store versions put in the last 24 hours, oldest first
	Puts []int64 `json:"puts,omitempty"`
	Pin  *Pin    `json:"pin,omitempty"`
	// Spent are the fingerprints of the pairs before Current in this epoch, the newest
	// last, and no more than a late save can bring back.
	Spent []token.Fingerprint `json:"spent,omitempty"`
	// Imported are the fingerprints of the refresh tokens that were ever imported.
	Imported []token.Fingerprint `json:"imported,omitempty"`
	// Refusal is set in NeedsConsent: when the issuer refused the refresh token, and what follows.
	Refusal *Refusal `json:"refusal,omitempty"`
	// ConsentAttempt is the right to refresh a waiting consent with an access token
	// that expired before its owner could be checked.
	ConsentAttempt *ConsentAttempt `json:"consent_attempt,omitempty"`
	// SearchAt is when something may have arrived that must be searched for: the end
	// of a consent or import that is under way, or the time after which an answer of
	// an ended epoch can no longer arrive. Zero: there is nothing to search for.
	SearchAt  time.Time `json:"search_at,omitzero"`
	RotatedAt time.Time `json:"rotated_at,omitzero"` // when the current pair was saved
	// ServiceAccount: the app itself is who acts, and its tokens come for its own
	// credentials (RFC 6749 section 4.4). There is no refresh token to lose.
	ServiceAccount bool `json:"service_account,omitempty"`
	// Quarantined: an answer to the current refresh token is quarantined, so nothing goes on
	// until a person says which pair is right. Every write sets it by the responses.
	Quarantined bool `json:"held,omitempty"`
	// NoticePending: nobody was notified yet that it needs a consent.
	NoticePending bool `json:"untold,omitempty"`
}

// Current describes the pair that the connection has now.
type Current struct {
	Fingerprint token.Fingerprint `json:"fingerprint"` // of its refresh token; of a service account's, of its access token
	Response    ResponseKey       `json:"mint"`
	VersionID   string            `json:"version_id,omitempty"` // empty: imported, has no access token to publish
	SavedAt     time.Time         `json:"saved_at"`
	ExpiresAt   time.Time         `json:"expires_at,omitzero"` // as readers see it
	// IssuedAt is the earlier of SavedAt and the time that the server says it issued
	// the pair. Due times count from it, because nobody knows which clock is right.
	IssuedAt time.Time `json:"issued_at,omitzero"`
	// Lifetime of the access token; 0: the server did not say.
	Lifetime Seconds `json:"lifetime,omitempty"`
}

// Seconds is a duration that is stored as a number of seconds.
type Seconds int64

// Duration of the seconds.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// Attempt is the right to present one refresh token until Until. Only its
// holder may present; anybody may save what an attempt brought.
type Attempt struct {
	ID          string            `json:"id"`
	Fingerprint token.Fingerprint `json:"fingerprint"`
	BegunAt     time.Time         `json:"begun_at"`
	Until       time.Time         `json:"until"`
	// of this token without a known result when the attempt began, and its own
	Presentations int `json:"presentations"`
	// the issuer said invalid_grant; what is left is to search for a successor
	Refused bool `json:"refused,omitempty"`
}

// ConsentAttempt is an Attempt for a consent that waits.
type ConsentAttempt struct {
	Attempt
	Consent string `json:"consent"` // attempt id of the consent
}

// Refusal is an invalid_grant after which no successor was found. The token is
// presented again at retryAfter: a refused token is either dead or works.
type Refusal struct {
	At     time.Time `json:"at"`
	Tries  int       `json:"tries"`   // presentations since, begun by the schedule
	NextAt time.Time `json:"next_at"` // when to search again, and while Tries allows it to present
}

// retryAfter are the times after a refusal at which the token is presented again.
// After the last one, what may hold a successor is read once a day.
var retryAfter = [...]time.Duration{15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}

// presents reports whether the schedule still has a presentation.
func (r *Refusal) presents() bool { return r != nil && r.Tries < len(retryAfter) }

// schedule sets NextAt by Tries.
func (r *Refusal) schedule(now time.Time) {
	r.NextAt = now.Add(daily).UTC()
	if r.presents() {
		r.NextAt = r.At.Add(retryAfter[r.Tries]).UTC()
	}
}

// unanswered does not count the last presentation, because nobody knows what the
// issuer says: it is repeated.
func (r *Refusal) unanswered(now time.Time) {
	if r != nil {
		r.Tries = max(0, r.Tries-1)
		r.schedule(now)
		r.NextAt = later(r.NextAt, now.Add(retryAfter[0]).UTC())
	}
}

// Failure makes one step for one response wait until NextAt. It neither hides
// nor delays any other.
type Failure struct {
	Step     Step        `json:"step"`
	Response ResponseKey `json:"mint,omitzero"` // the response concerned; zero: the connection as a whole
	Class    string      `json:"class"`
	Count    int         `json:"count"` // in a row
	NextAt   time.Time   `json:"next_at"`
	Detail   string      `json:"detail,omitempty"`
	// Cause is the fingerprint of the credentials or the setting that a failure of
	// class config is about. The failure ends as soon as that is another one.
	Cause string `json:"cause,omitempty"`
}

// failure returns what failed lately for the step and response, or nil.
func (r Record) failure(step Step, key ResponseKey) *Failure {
	for i := range r.Failures {
		if f := &r.Failures[i]; f.Step == step && f.Response == key {
			return f
		}
	}
	return nil
}

// Attempts are the rights to present that the row gives: for the current refresh
// token, and for a waiting consent's.
func (r Record) Attempts() (attempts []Attempt) {
	if r.Attempt != nil {
		attempts = append(attempts, *r.Attempt)
	}
	if r.ConsentAttempt != nil {
		attempts = append(attempts, r.ConsentAttempt.Attempt)
	}
	return attempts
}

// Failure returns the gravest of the failures, for people: one that only a person
// can mend before one that ends by itself. nil: there is none.
func (r Record) Failure() (gravest *Failure) {
	for i, f := range r.Failures {
		switch {
		case f.Class == classQuarantine: // Quarantined says it
		case gravest == nil, f.Class == classConfig && gravest.Class != classConfig:
			gravest = &r.Failures[i]
		}
	}
	return gravest
}

// forget drops failures. It does not change the slice it was given.
func (r *Record) forget(drop func(Failure) bool) {
	r.Failures = slices.DeleteFunc(slices.Clone(r.Failures), drop)
	if len(r.Failures) == 0 {
		r.Failures = nil
	}
}

// setFailure notes f in place of an earlier failure of the same step and response.
func (r *Record) setFailure(f Failure) {
	r.forget(func(old Failure) bool { return old.Step == f.Step && old.Response == f.Response })
	r.Failures = append(r.Failures, f)
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

// ResponseState is the stored mark of a response. All else follows from the ledger.
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
	Connection token.Connection `json:"connection"`
	Key        ResponseKey      `json:"key"`
	// Current.Fingerprint of the pair it succeeds; empty for a consent
	Parent  token.Fingerprint `json:"parent,omitempty"`
	Source  Source            `json:"source"`
	SavedAt time.Time         `json:"saved_at"`
	State   ResponseState     `json:"state"`
	Reason  string            `json:"reason,omitempty"` // why it is quarantined or rejected
	Sealed  []byte            `json:"sealed"`
	// Before is the lifetime of the access token that this one replaces. It counts where
	// the answer has none.
	Before Seconds `json:"before,omitempty"`
	// Consent is the attempt id of the waiting consent that this refresh continues.
	Consent string `json:"consent,omitempty"`
	// Expect is the identity that a consent was asked for.
	Expect *Identity `json:"expect,omitempty"`
	// What is published besides the answer; kept here so that the document
	// is a function of the response alone.
	APIURL  string `json:"api_url,omitempty"`
	Company string `json:"company,omitempty"`
	Stack   string `json:"stack"`
}

// Identity is the owner of the consent that a pair carries. In TokenResponse.Expect and in invitations
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
	r.Failures = slices.Clone(r.Failures)
	r.Refusal = clonePtr(r.Refusal)
	r.ConsentAttempt = clonePtr(r.ConsentAttempt)
	r.Pin = clonePtr(r.Pin)
	r.Puts = slices.Clone(r.Puts)
	r.Imported = slices.Clone(r.Imported)
	r.Spent = slices.Clone(r.Spent)
	return r
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
