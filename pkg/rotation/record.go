package rotation

import (
	"fmt"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Status is the state of a connection.
type Status string

const (
	Pending      Status = "pending"       // registered; nobody has consented yet
	Active       Status = "active"        // has a pair that is kept fresh
	NeedsConsent Status = "needs_consent" // the pair is spent or revoked; a person must consent again
	Disconnected Status = "disconnected"  // taken out of use on purpose
)

// Record is the ledger's row for one connection: who may act, and which pair is
// current. (Epoch, Generation) only grows: a refresh raises Generation; consent,
// import and disconnect raise Epoch.
type Record struct {
	Connection token.Connection `json:"connection"`
	// Revision is opaque and changes with every write. Load sets it, Write compares it.
	// Empty means that there is no row yet.
	Revision   string   `json:"-"`
	Stack      string   `json:"stack"`
	Epoch      int64    `json:"epoch"`
	Generation int64    `json:"generation"`
	Status     Status   `json:"status"`
	Current    *Current `json:"current,omitempty"`
	// Ancestor is the response that Current succeeded. Its bytes are kept until
	// Current is published.
	Ancestor  *ResponseKey `json:"ancestor,omitempty"`
	Published string       `json:"published,omitempty"` // version id that AWSCURRENT was moved to
	Attempt   *Attempt     `json:"attempt,omitempty"`
	DueAt     time.Time    `json:"due_at,omitzero"` // when a run next has something to do; zero: never
	// Failures of steps, at most one for each step and response.
	Failures []Failure `json:"failures,omitempty"`
	// Unix seconds of the secret store versions put in the last 24 hours, oldest first
	Puts []int64 `json:"puts,omitempty"`
	Pin  *Pin    `json:"pin,omitempty"`
	// Spent are the fingerprints of the latest pairs before Current in this epoch, the
	// newest last: as many as a late save can bring back.
	Spent []token.Fingerprint `json:"spent,omitempty"`
	// Imported are the fingerprints of all refresh tokens that were ever imported.
	Imported []token.Fingerprint `json:"imported,omitempty"`
	// Refusal is set in NeedsConsent: when the issuer refused the refresh token, and when to try again.
	Refusal *Refusal `json:"refusal,omitempty"`
	// ConsentAttempt is the right to refresh a waiting consent, if its access token
	// expired before its owner could be checked.
	ConsentAttempt *ConsentAttempt `json:"consent_attempt,omitempty"`
	// SearchAt is when to search for late answers: the end of a consent or import that
	// is under way, or the time after which an answer of an ended epoch can no longer
	// arrive. Zero: there is nothing to search for.
	SearchAt time.Time `json:"search_at,omitzero"`
	// InvitedUntil is when the last invitation to a pending connection expires. Zero: not
	// known, or the connection is to stay.
	InvitedUntil time.Time `json:"invited_until,omitzero"`
	RotatedAt    time.Time `json:"rotated_at,omitzero"` // when the current pair was saved
	// ServiceAccount: the app acts for itself, with tokens for its own credentials
	// (RFC 6749 section 4.4). There is no refresh token to lose.
	ServiceAccount bool `json:"service_account,omitempty"`
	// Quarantined: an answer to the current refresh token is quarantined, so the token is
	// not presented until a person decides. Every write derives it from the responses.
	Quarantined bool `json:"held,omitempty"`
	// NoticePending: the notice that the connection needs a consent is still to be sent.
	NoticePending bool `json:"untold,omitempty"`
}

// Expired reports whether the connection is pending, its last invitation has expired, and
// there is nothing to do for it: nobody can connect it without another invitation.
func (r Record) Expired(now time.Time) bool {
	return r.Status == Pending && r.DueAt.IsZero() && !r.InvitedUntil.IsZero() && !now.Before(r.InvitedUntil)
}

// pendingKept is longer than a consent that began before the end of its invitation takes
// until it makes the connection due.
const pendingKept = 24 * time.Hour

// DeleteAt is when a Ledger may delete the row, unless it is written before; zero: never.
// It deletes no row with a response.
func (r Record) DeleteAt() time.Time {
	if r.Status != Pending || !r.DueAt.IsZero() || r.InvitedUntil.IsZero() {
		return time.Time{}
	}
	return r.InvitedUntil.Add(pendingKept)
}

// OnlyImported reports whether the current refresh token was imported and has not worked yet.
// Nobody has consented through tokenturn, and it may be mistyped.
func (r Record) OnlyImported() bool { return r.Current != nil && r.Current.VersionID == "" }

// Current describes the pair that the connection has now.
type Current struct {
	Fingerprint token.Fingerprint `json:"fingerprint"` // of its refresh token; for a service account, of its access token
	Response    ResponseKey       `json:"mint"`
	VersionID   string            `json:"version_id,omitempty"` // empty: imported, without an access token to publish
	SavedAt     time.Time         `json:"saved_at"`
	ExpiresAt   time.Time         `json:"expires_at,omitzero"` // as readers see it
	// IssuedAt is the earlier of SavedAt and the server's time of issue. Due times count
	// from it, because nobody knows which clock is right.
	IssuedAt time.Time `json:"issued_at,omitzero"`
	// Lifetime of the access token; 0: the server did not say.
	Lifetime Seconds `json:"lifetime,omitempty"`
}

// Seconds is a duration that is stored as a number of seconds.
type Seconds int64

// Duration of the seconds.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// Attempt is the right to present one refresh token until Until. Only its holder may
// present the token. Anyone may save the answer.
type Attempt struct {
	ID          string            `json:"id"`
	Fingerprint token.Fingerprint `json:"fingerprint"`
	BegunAt     time.Time         `json:"begun_at"`
	Until       time.Time         `json:"until"`
	// when a run that has an earlier clock first saw the attempt; zero: none did
	Seen time.Time `json:"seen,omitzero"`
	// presentations of this token without a known result: earlier ones, and this attempt's
	Presentations int `json:"presentations"`
	// the issuer answered invalid_grant; only the search for a successor is left
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
	Tries  int       `json:"tries"`   // times of the schedule that have passed with a presentation
	NextAt time.Time `json:"next_at"` // when to search again and, while Tries allows it, to present
}

// retryAfter are the times after a refusal at which the token is presented again. After
// the last one, runs only search for a successor, once a day.
var retryAfter = [...]time.Duration{15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}

// presents reports whether the schedule still has a presentation.
func (r *Refusal) presents() bool { return r != nil && r.Tries < len(retryAfter) }

// tried counts a presentation at now. It stands for all that were due by then: one that
// comes late is not followed by the others at once.
func (r *Refusal) tried(now time.Time) {
	r.Tries++
	for r.presents() && !now.Before(r.At.Add(retryAfter[r.Tries])) {
		r.Tries++
	}
	r.schedule(now)
}

// schedule sets NextAt by Tries.
func (r *Refusal) schedule(now time.Time) {
	r.NextAt = now.Add(daily).UTC()
	if r.presents() {
		r.NextAt = r.At.Add(retryAfter[r.Tries]).UTC()
	}
}

// unanswered takes back the last presentation, because its answer was lost. It is
// repeated.
func (r *Refusal) unanswered(now time.Time) {
	if r != nil {
		r.Tries = max(0, r.Tries-1)
		r.schedule(now)
		r.NextAt = later(r.NextAt, now.Add(retryAfter[0]).UTC())
	}
}

// Failure makes one step for one response wait until NextAt. It does not hide or delay
// any other step.
type Failure struct {
	Step     Step        `json:"step"`
	Response ResponseKey `json:"mint,omitzero"` // the response concerned; zero: the connection as a whole
	Class    string      `json:"class"`
	Count    int         `json:"count"` // in a row
	NextAt   time.Time   `json:"next_at"`
	Detail   string      `json:"detail,omitempty"`
	// Cause is the fingerprint of the credentials that a failure of class config is
	// about. The failure ends as soon as the credentials change.
	Cause string `json:"cause,omitempty"`
}

// Summary describes the failure for people.
func (f Failure) Summary() string {
	step, times := string(f.Step), "once"
	switch f.Step {
	case Recover:
		step = "recover"
	case Quarantine:
		step = "quarantine"
	}
	if f.Count > 1 {
		times = fmt.Sprintf("%d times in a row", f.Count)
	}
	summary := fmt.Sprintf("%s failed %s (%s)", step, times, f.Class)
	if f.Detail != "" {
		summary += ": " + f.Detail
	}
	return summary
}

// Attempts are the attempts in the row: for the current refresh token and for that of a
// waiting consent.
func (r Record) Attempts() (attempts []Attempt) {
	if r.Attempt != nil {
		attempts = append(attempts, *r.Attempt)
	}
	if r.ConsentAttempt != nil {
		attempts = append(attempts, r.ConsentAttempt.Attempt)
	}
	return attempts
}

// Failure returns the most serious failure, for people: one that only a person can fix
// comes before one that may end without help. nil: there is none.
func (r Record) Failure() (gravest *Failure) {
	for i, f := range r.Failures {
		switch {
		case f.Class == classQuarantine: // Quarantined says this
		case gravest == nil, f.Class == classConfig && gravest.Class != classConfig:
			gravest = &r.Failures[i]
		}
	}
	return gravest
}

// forget drops failures. It does not change the slice in place, because copies share it.
func (r *Record) forget(drop func(Failure) bool) {
	r.Failures = slices.DeleteFunc(slices.Clone(r.Failures), drop)
	if len(r.Failures) == 0 {
		r.Failures = nil
	}
}

// setFailure replaces an earlier failure of the same step and response by f.
func (r *Record) setFailure(f Failure) {
	r.forget(func(old Failure) bool { return old.Step == f.Step && old.Response == f.Response })
	r.Failures = append(r.Failures, f)
}

// Pin is the identity that a connection keeps across consents. A pair of another
// identity is rejected.
type Pin struct {
	Environment   string            `json:"environment"`
	Client        token.Fingerprint `json:"client"` // of the client id
	ResourceOwner string            `json:"resource_owner,omitempty"`
	Login         string            `json:"login,omitempty"` // the user's e-mail address when last seen; not compared
	Company       string            `json:"company,omitempty"`
	CompanyName   string            `json:"company_name,omitempty"` // for people, as the operator wrote it; not compared
}

// Source says where a response comes from.
type Source string

const (
	FromRefresh Source = "refresh"
	FromCode    Source = "code"
	FromImport  Source = "import"             // a pasted refresh token; there is no access token
	FromClient  Source = "client_credentials" // of a service account; there is no refresh token
)

// ResponseState is the stored mark of a response. Everything else follows from the
// record.
type ResponseState string

const (
	Saved       ResponseState = "saved"
	Quarantined ResponseState = "quarantined" // not usable as it is; a person must decide
	Rejected    ResponseState = "rejected"    // not usable, to be revoked where possible
)

// ResponseKey identifies a response within its connection.
type ResponseKey struct {
	Epoch      int64  `json:"epoch"`
	Generation int64  `json:"generation"`
	Attempt    string `json:"attempt"`
}

// TokenResponse is an append-only record of one answer of the token endpoint, saved
// before it is judged. Sealed is made once and never re-encrypted, so a response and
// every copy of it have the same bytes.
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
	// Before is the lifetime of the access token that this one replaces. It counts if the
	// answer has none.
	Before Seconds `json:"before,omitempty"`
	// Client is the fingerprint of the client id that the pair was issued to. Empty: not known.
	Client token.Fingerprint `json:"client,omitempty"`
	// Consent is the attempt id of the waiting consent that this refresh continues.
	Consent string `json:"consent,omitempty"`
	// Expect is the identity that a consent was requested for.
	Expect *Identity `json:"expect,omitempty"`
	// What is published besides the answer, so that the document is a function of the
	// response alone.
	APIURL  string `json:"api_url,omitempty"`
	Company string `json:"company,omitempty"`
	Stack   string `json:"stack"`
}

// Identity is the owner of a pair: the person who consented, and the app. In
// TokenResponse.Expect and in invitations, empty fields are not compared.
type Identity struct {
	ClientID      string `json:"client_id,omitempty"`
	ResourceOwner string `json:"resource_owner,omitempty"` // Procore's user id
	Login         string `json:"login,omitempty"`          // the user's e-mail address
	Company       string `json:"company,omitempty"`        // Procore's company id
	// CompanyName is for people, as the operator wrote it. It is never compared.
	CompanyName string `json:"company_name,omitempty"`
	// Repin accepts a resource owner and company other than the connection's pin.
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
	// Spent is the refresh token that this event shows to be spent.
	Spent token.Fingerprint `json:"spent,omitempty"`
	// ExpiresAt is when the access token of a pair that became current expires.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// after reports whether a comes after b in (epoch, generation) order.
func after(aEpoch, aGeneration, bEpoch, bGeneration int64) bool {
	return aEpoch > bEpoch || aEpoch == bEpoch && aGeneration > bGeneration
}

// clone returns a copy of r that shares no memory with r that could change.
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
