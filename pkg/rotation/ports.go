package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Errors that adapters return, possibly wrapped, and on which the engine
// decides. Any other error of a port means that the outcome is unknown: the
// call may or may not have taken effect.
var (
	// ErrConflict: another writer changed the row first, nothing was written.
	ErrConflict = errors.New("the row was changed by another writer")
	// ErrNoSecret: the connection has no secret in the secret store.
	ErrNoSecret = errors.New("no such secret")
	// ErrNoVersion: the secret has no version of that id or label, or none yet.
	ErrNoVersion = errors.New("no such version")
	// ErrVersionTaken: the id is in use for other content, nothing was written.
	ErrVersionTaken = errors.New("the version id is in use for other content")
	// ErrNotCurrent: the label is not on the version that was to be replaced, nothing was moved.
	ErrNotCurrent = errors.New("AWSCURRENT is on another version")
	// ErrSecretDeleted: the secret is scheduled for deletion.
	ErrSecretDeleted = errors.New("the secret is scheduled for deletion")
	// ErrVersionLimit: the secret store takes no more versions of this secret for now.
	ErrVersionLimit = errors.New("the secret has as many versions as the secret store allows")
	// ErrNoApplication: the environment has no app credentials.
	ErrNoApplication = errors.New("no app credentials")
	// ErrUnsealable: the bytes were not made by this sealer or were changed.
	// Trying again cannot help.
	ErrUnsealable = errors.New("cannot be unsealed")
	// ErrTokenRefused: the issuer does not accept the access token.
	ErrTokenRefused = errors.New("the issuer refuses the access token")
	// ErrAppNotInstalled: the access token is good, but an administrator has not
	// installed the app in the company. Asking again later can help.
	ErrAppNotInstalled = errors.New("the app is not installed in the company")
	// ErrNotHandedOn: what is left for a follow-up could neither be sent nor noted.
	ErrNotHandedOn = errors.New("a follow-up could neither be sent nor noted")
)

// WaitError is an error of the Issuer with which the server asked not to be
// asked again before Wait is over. Wait is bounded.
type WaitError struct {
	Wait time.Duration
	Err  error
}

func (e *WaitError) Error() string { return e.Err.Error() }
func (e *WaitError) Unwrap() error { return e.Err }

// Ledger keeps records, responses and history. It is safe for concurrent use by
// many processes. Once a write returned nil it is durable and seen by every
// later Load.
type Ledger interface {
	// Load returns the record and the live responses of c, strongly consistent. A
	// connection without a row has an empty Revision and no error.
	Load(ctx context.Context, c token.Connection) (Record, []TokenResponse, error)
	// Due lists the connections whose DueAt is not after now, the most
	// overdue first, and may stop at MaxDue of them. It is a hint and may lag;
	// finding nothing costs one read.
	Due(ctx context.Context, now time.Time) ([]token.Connection, error)
	// Write applies a change in one atomic step if the row's revision is still
	// Record.Revision, and returns the new revision. Otherwise ErrConflict. A
	// write that the transport repeated after it had taken effect is a success.
	//
	// A write whose Record begins an attempt (an Attempt.ID that the stored row
	// does not have) succeeds only if from then on, as long as the row has that
	// attempt, SaveResponse can save the largest answer to it without needing more
	// disk space. Otherwise nothing is written.
	Write(ctx context.Context, change Change) (revision string, err error)
	// SaveResponse appends m under no condition but "not there yet". If a response
	// with the same key is there, that is a success and nothing changes. One
	// that was buried comes back, and is an orphan.
	SaveResponse(ctx context.Context, m TokenResponse) error
}

// MaxDue is where a Ledger may stop listing what is due: more than one run can
// rotate in the 15 minutes that Lambda gives it, and few enough to be listed
// within seconds, however long nobody came.
const MaxDue = 20_000

// Change is what one Ledger.Write does. Copy and Bury may name a response several
// times, which counts once; otherwise a response is in one of Copy, Mark and Bury
// only.
//
// A store that limits one write does not refuse a large change: it may append some
// of Copy ahead of the rest, as SaveResponse does, so that they stay even after
// ErrConflict; and it may leave some of Bury undone, which Load lists as before and
// a later write buries. All else of a change happens in one step.
type Change struct {
	Record Record // the new row; its Revision is the one that was loaded
	// responses to append: copies of what the secret store keeps; one that is there already stays as it is
	Copy    []TokenResponse
	Mark    []TokenResponse // live responses whose State and Reason are rewritten; ErrConflict if one is not there
	Bury    []ResponseKey   // responses that become history: their bytes go away; one that is not there is no error
	History []Event         // rows to append
	_       struct{}        // use field names
}

// SecretStore is what consumers read: one secret per connection, with immutable
// versions and the labels AWSCURRENT and AWSPENDING, on the terms of AWS
// Secrets Manager. It is safe for concurrent use. Reads by label may be stale;
// reads by id are never wrong but may lag (ErrNoVersion).
type SecretStore interface {
	// Current returns the version labelled AWSCURRENT.
	// ErrNoSecret, ErrNoVersion, ErrSecretDeleted.
	Current(ctx context.Context, c token.Connection) (Version, error)
	// Version returns the version with the id, whatever its labels.
	// ErrNoSecret, ErrNoVersion, ErrSecretDeleted.
	Version(ctx context.Context, c token.Connection, id string) (Version, error)
	// Versions lists every version, those without labels included.
	// ErrNoSecret, ErrSecretDeleted.
	Versions(ctx context.Context, c token.Connection) ([]VersionInfo, error)
	// Create makes the secret with its first version, which is AWSCURRENT. If
	// the secret is there with this very version, that is a success; with
	// another one, ErrVersionTaken. ErrSecretDeleted.
	Create(ctx context.Context, c token.Connection, id string, value token.Secret) error
	// Put stores value under id with the label AWSPENDING (moved from the version
	// that had it). If the id is there with the same content nothing changes.
	// ErrNoSecret, ErrVersionTaken, ErrSecretDeleted, ErrVersionLimit.
	Put(ctx context.Context, c token.Connection, id string, value token.Secret) error
	// Promote moves AWSCURRENT to id from replaces, in one step. If it is
	// already on id, that is a success.
	// ErrNoSecret, ErrNoVersion, ErrNotCurrent, ErrSecretDeleted.
	Promote(ctx context.Context, c token.Connection, id, replaces string) error
}

// Version is one stored value of a secret.
type Version struct {
	ID    string
	Value token.Secret
}

// VersionInfo describes a stored value without reading it.
type VersionInfo struct {
	ID        string
	CreatedAt time.Time
	Labels    []string
}

// Sealer makes and opens data keys for envelope encryption. Implementations
// bind the keys to the installation (the stack) where the store allows it.
type Sealer interface {
	// DataKey returns a fresh 32-byte key, in clear and wrapped.
	DataKey(ctx context.Context) (key, wrapped []byte, err error)
	// Unwrap returns the key in clear. ErrUnsealable if wrapped is not one of ours.
	Unwrap(ctx context.Context, wrapped []byte) (key []byte, err error)
}

// Application is what the developer portal registered for one environment,
// complete with the hosts to talk to.
type Application struct {
	Environment  string
	ClientID     string
	ClientSecret token.Secret
	RedirectURI  string
	LoginURL     string // base of /oauth/...
	APIURL       string // base of /rest/...
}

// Applications finds the app credentials of an environment. ErrNoApplication.
type Applications interface {
	Application(ctx context.Context, environment string) (Application, error)
}

// Issuer is the authorization server. No method retries anything.
type Issuer interface {
	// Redeem presents the grant with exactly one POST, or none if the
	// connection cannot be made, and reports what came of it. Cancelling ctx
	// once the request is on its way gives UnknownResult.
	Redeem(ctx context.Context, app Application, grant Grant) Answer
	// Parse judges the body of a 2xx answer; see Judgement.
	Parse(body token.Secret) Judgement
	// Identify asks who owns the access token. company, if not empty, is
	// returned in Identity.Company only if the token may act there.
	// ErrTokenRefused if the issuer does not accept the token, ErrAppNotInstalled
	// if only an administrator of the company can let it in. After any other
	// error, a *WaitError among them, the owner of the token is not known. What was
	// found out before an error comes with it; a ClientID means that the token was used.
	Identify(ctx context.Context, app Application, access token.Secret, company string) (Identity, error)
	// Revoke ends the token, and with it its pair. A token that is dead or
	// unknown already is no error.
	Revoke(ctx context.Context, app Application, t token.Secret) error
}

// Grant is what is presented to the token endpoint: exactly one of
// RefreshToken, Code and ClientCredentials.
type Grant struct {
	RefreshToken      token.Secret
	Code              token.Secret
	RedirectURI       string       // with Code: as sent to the authorization endpoint
	Verifier          token.Secret // with Code: PKCE (RFC 7636); may be empty
	ClientCredentials bool         // the app's own (RFC 6749 section 4.4): spends nothing
}

// Answer is what became of one redeem.
type Answer struct {
	Class  Class
	Body   token.Secret  // of a Captured answer, whatever of it arrived
	Wait   time.Duration // how long the server asks to be left alone, whatever the answer; 0 if it did not say
	Detail string        // for people, without anything secret: "HTTP 503", "invalid_client", "dial: connection refused"
}

// Class says what an answer means for the credential that was presented.
type Class string

const (
	Captured      Class = "captured"       // any 2xx: spent, the body may hold its successor
	RateLimited   Class = "rate_limited"   // 429: not spent
	Refused       Class = "refused"        // invalid_grant: spent before, or never ours
	ClientFault   Class = "client_fault"   // invalid_client: not spent
	GrantFault    Class = "grant_fault"    // unauthorized_client: the app may not use this kind of grant; not spent
	RequestFault  Class = "request_fault"  // invalid_request, unsupported_grant_type, invalid_scope: not spent
	NotSent       Class = "not_sent"       // no connection, or the request was never written: not spent
	OddRefusal    Class = "odd_refusal"    // a 3xx, or a 4xx without a known OAuth error: whether it is spent is not known
	UnknownResult Class = "unknown_result" // anything else: nobody knows
)

// Judgement is what a body turned out to be.
type Judgement struct {
	Verdict Verdict
	Pair    token.Pair // of Sound, Salvaged and AccessOnly
	Reason  string     // of the others and of Salvaged; for people, without anything secret
}

// Verdict is the outcome of parsing a body.
type Verdict string

const (
	Sound         Verdict = "sound"
	Salvaged      Verdict = "salvaged"      // an odd body with exactly one plausible refresh token; Pair may lack the rest
	AccessOnly    Verdict = "access_only"   // sound but for the refresh token, of which there is none
	Empty         Verdict = "empty"         // nothing, or text without a whole refresh token in it
	Contradictory Verdict = "contradictory" // several, different ones: a person must decide
	Unreadable    Verdict = "unreadable"    // bytes in no known encoding: a person or a newer program must decide
)

// FollowUps asks for a later run. Delivery is at least once and may be late.
type FollowUps interface {
	// Send asks for request to be carried out after delay, at most MaxDelay.
	Send(ctx context.Context, request Request, delay time.Duration) error
}

// RateLimiter is one rate for all runs of an installation: a clock per name, which
// gives out turns in order. It is safe for concurrent use by many processes. A turn
// is lost if the process that took it ends first, or if the transport repeats the call.
type RateLimiter interface {
	// Turn takes the next turn: it moves the clock on by every from where it
	// stands, or from earliest if it stands before that, and returns where it stood.
	Reserve(ctx context.Context, name string, earliest time.Time, every time.Duration) (time.Time, error)
}

// MaxDelay is the longest delay a FollowUps must support: that of Amazon SQS.
// A request with a later NotBefore is sent on in hops.
const MaxDelay = 15 * time.Minute

// Notifier notifies people. It must not block for long. After an error the notice
// may or may not have been delivered.
type Notifier interface {
	Notify(ctx context.Context, n Notice) error
}

// Notice is one thing a person should know.
type Notice struct {
	Kind        string           `json:"kind"` // see the constants
	Connection  token.Connection `json:"connection,omitzero"`
	Environment string           `json:"environment,omitempty"`
	Summary     string           `json:"summary"` // what happened and what to do, in one or two sentences
	// Link is where a person can allow access again, if one could be made. It is
	// not in the log, because anyone with it can authorize the connection.
	Link token.Secret `json:"-"`
	At   time.Time    `json:"at"`
}

// NoticeClaims keep, for all runs of an installation, which events are claimed:
// those that concern many connections and were announced, and requests for a sweep
// that were sent. It is safe for concurrent use by many processes.
type NoticeClaims interface {
	// First claims an event until then, and reports whether nobody holds that
	// claim now.
	First(ctx context.Context, event string, now, until time.Time) (bool, error)
}

// Invitations make links by which a person can consent to a connection again.
type Invitations interface {
	Renew(ctx context.Context, rec Record, now time.Time) (link token.Secret, until time.Time, err error)
}

// The kinds of notices.
const (
	NoticeNeedsConsent    = "needs_consent"
	NoticeRecovered       = "recovered"
	NoticeUnknown         = "unknown"
	NoticeConfigError     = "config_error"
	NoticeQuarantined     = "quarantined"
	NoticeRejected        = "rejected" // a pair of the wrong identity, or an answer without a refresh token
	NoticeSalvaged        = "salvaged"
	NoticeDrift           = "drift"   // the secret store did not show what the ledger decided
	NoticeUnsaved         = "unsaved" // an answer could be saved nowhere: the connection is probably lost
	NoticeLifetimeChanged = "lifetime_changed"
	NoticeClock           = "clock"             // our clock and the server's differ
	NoticeAppNotInstalled = "app_not_installed" // a consent waits for an administrator of the company
)

// Request is an operation in the form that queue messages and direct calls have.
type Request struct {
	Op            string    `json:"op"` // "sweep", "rotate", "ensure" or "publish"
	Connection    string    `json:"connection,omitempty"`
	MinTTLSeconds int64     `json:"min_ttl_seconds,omitempty"`
	Epoch         int64     `json:"epoch,omitempty"`      // of a follow-up: dropped once the
	Generation    int64     `json:"generation,omitempty"` // connection has moved on from here
	NotBefore     time.Time `json:"not_before,omitzero"`
	// of a sweep that a run has asked for: one works at a time, for a minute
	FollowUp bool `json:"follow_up,omitempty"`
}
