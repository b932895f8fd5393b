package rotation

import (
	"context"
	"errors"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Errors that adapters return, possibly wrapped, and that the engine handles. After any
// other error of a port the result is unknown: the call may or may not have taken effect.
var (
	// ErrConflict: another writer changed the row first; nothing was written.
	ErrConflict = errors.New("the row was changed by another writer")
	// ErrNoSecret: the connection has no secret in the secret store.
	ErrNoSecret = errors.New("no such secret")
	// ErrNoVersion: the secret has no version with that id or label, or not yet.
	ErrNoVersion = errors.New("no such version")
	// ErrVersionTaken: the id is in use for other content; nothing was written.
	ErrVersionTaken = errors.New("the version id is in use for other content")
	// ErrNotCurrent: the label is not on the version to be replaced; nothing was moved.
	ErrNotCurrent = errors.New("AWSCURRENT is on another version")
	// ErrSecretDeleted: the secret is scheduled for deletion.
	ErrSecretDeleted = errors.New("the secret is scheduled for deletion")
	// ErrVersionLimit: the secret store takes no more versions of this secret for now.
	ErrVersionLimit = errors.New("the secret has as many versions as the secret store allows")
	// ErrNoApplication: the environment has no app credentials.
	ErrNoApplication = errors.New("no app credentials")
	// ErrUnsealable: this sealer did not make the bytes, or they were changed. A retry
	// cannot help.
	ErrUnsealable = errors.New("cannot be unsealed")
	// ErrCredentialsRefused: the issuer does not accept the client id or the client secret.
	ErrCredentialsRefused = errors.New("the server refuses the client id or client secret")
	// ErrTokenRefused: the issuer does not accept the access token.
	ErrTokenRefused = errors.New("the issuer refuses the access token")
	// ErrAppNotInstalled: the access token is valid, but an administrator has not
	// installed the app in the company. Asking again later can help.
	ErrAppNotInstalled = errors.New("the app is not installed in the company")
	// ErrNotHandedOn: a follow-up that is needed could neither be sent nor recorded.
	ErrNotHandedOn = errors.New("a follow-up could neither be sent nor recorded")
)

// WaitError is an error of the Issuer with which the server asked for no request before
// Wait is over. Wait is bounded.
type WaitError struct {
	Wait time.Duration
	Err  error
}

func (e *WaitError) Error() string { return e.Err.Error() }
func (e *WaitError) Unwrap() error { return e.Err }

// Ledger keeps records, responses and history. It is safe for concurrent use by many
// processes. Once a write has returned nil, it is durable, and every later Load sees it.
type Ledger interface {
	// Load returns the record and the live responses of c, strongly consistent. A
	// connection without a row has an empty Revision and no error.
	Load(ctx context.Context, c token.Connection) (Record, []TokenResponse, error)
	// Due lists the connections with a DueAt that is not after now, the most overdue
	// first. It may end the list at MaxDue. It is a hint and may lag; finding nothing
	// costs one read.
	Due(ctx context.Context, now time.Time) ([]token.Connection, error)
	// Write applies a change in one atomic step if the row's revision is still
	// Record.Revision, and returns the new revision. Otherwise ErrConflict. A write
	// that the transport repeated after it had taken effect is a success.
	//
	// A Record begins an attempt if it has an Attempt.ID that the stored row does not
	// have. Such a write succeeds only if SaveResponse can then save the largest answer
	// without more disk space, as long as the row has that attempt. Otherwise nothing
	// is written.
	Write(ctx context.Context, change Change) (revision string, err error)
	// SaveResponse appends m on the only condition that it is not there yet. If a
	// response with the same key is there, the call succeeds and nothing changes. A
	// response that was buried comes back and is an orphan.
	SaveResponse(ctx context.Context, m TokenResponse) error
}

// MaxDue is the number of due connections after which a Ledger may end its list. It is
// more than one run can rotate in the 15 minutes that Lambda gives it, and few enough to
// be listed within seconds, even if no run came for a long time.
const MaxDue = 20_000

// Change is what one Ledger.Write does. Copy and Bury may name a response several times,
// which counts once. Apart from that, a response is in only one of Copy, Mark and Bury.
//
// A store with a limit on one write does not refuse a large change. It may append some of
// Copy first, as SaveResponse does, so that they stay even after ErrConflict. And it may
// leave some of Bury undone; Load lists those as before, and a later write buries them.
// Everything else in a change happens in one step.
type Change struct {
	Record Record // the new row; its Revision is the one that was loaded
	// responses to append, copied from the secret store; one that is already there stays as it is
	Copy    []TokenResponse
	Mark    []TokenResponse // live responses that get a new State and Reason; ErrConflict if one is not there
	Bury    []ResponseKey   // responses to delete with their bytes; one that is not there is no error
	History []Event         // rows to append
	_       struct{}        // use field names
}

// SecretStore is what readers see: one secret per connection, with immutable versions
// and the labels AWSCURRENT and AWSPENDING, by the rules of AWS Secrets Manager. It is
// safe for concurrent use. Reads by label may be stale. Reads by id are never wrong but
// may lag (ErrNoVersion).
type SecretStore interface {
	// Current returns the version labeled AWSCURRENT.
	// ErrNoSecret, ErrNoVersion, ErrSecretDeleted.
	Current(ctx context.Context, c token.Connection) (Version, error)
	// Version returns the version with the id, whatever its labels.
	// ErrNoSecret, ErrNoVersion, ErrSecretDeleted.
	Version(ctx context.Context, c token.Connection, id string) (Version, error)
	// Versions lists every version, those without labels included.
	// ErrNoSecret, ErrSecretDeleted.
	Versions(ctx context.Context, c token.Connection) ([]VersionInfo, error)
	// Create makes the secret with its first version, which is AWSCURRENT. If the secret
	// is already there with this version, the call succeeds; with another version,
	// ErrVersionTaken. ErrSecretDeleted.
	Create(ctx context.Context, c token.Connection, id string, value token.Secret) error
	// Put stores value under id and moves the label AWSPENDING to it. If the id is
	// already there with the same content, nothing changes.
	// ErrNoSecret, ErrVersionTaken, ErrSecretDeleted, ErrVersionLimit.
	Put(ctx context.Context, c token.Connection, id string, value token.Secret) error
	// Promote moves AWSCURRENT from replaces to id, in one step. If it is already on id,
	// the call succeeds.
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

// Sealer makes and opens data keys for envelope encryption. Implementations bind the
// keys to the installation (the stack) if their key store allows it.
type Sealer interface {
	// DataKey returns a new 32-byte key, in plaintext and wrapped.
	DataKey(ctx context.Context) (key, wrapped []byte, err error)
	// Unwrap returns the key in plaintext. ErrUnsealable if this installation did not
	// make wrapped.
	Unwrap(ctx context.Context, wrapped []byte) (key []byte, err error)
}

// Application is the registration of the app in the Developer Portal for one
// environment, with the hosts to use.
type Application struct {
	Environment  string
	ClientID     string
	ClientSecret token.Secret
	SecondSecret token.Secret // used in place of ClientSecret once the server refuses that; may be zero
	RedirectURI  string
	LoginURL     string // base of /oauth/...
	APIURL       string // base of /rest/...
}

// other returns the app with its client secrets exchanged. It reports whether it has two.
func (a Application) other() (Application, bool) {
	if a.SecondSecret.IsZero() {
		return a, false
	}
	a.ClientSecret, a.SecondSecret = a.SecondSecret, a.ClientSecret
	return a, true
}

// client is the fingerprint of the client id.
func (a Application) client() token.Fingerprint { return token.NewSecret(a.ClientID).Fingerprint() }

// Applications finds the app credentials of an environment. ErrNoApplication.
type Applications interface {
	Application(ctx context.Context, environment string) (Application, error)
}

// Issuer is the authorization server. No method retries anything.
type Issuer interface {
	// Redeem presents the grant with exactly one POST, or with none if no connection
	// can be made, and returns the answer. If ctx is canceled after the request is
	// sent, the class is UnknownResult.
	Redeem(ctx context.Context, app Application, grant Grant) Answer
	// Parse judges the body of a 2xx answer; see Judgement.
	Parse(body token.Secret) Judgement
	// Identify asks for the owner of the access token. company, if not empty, is
	// returned in Identity.Company only if the token may act there. ErrTokenRefused
	// if the issuer does not accept the token; ErrAppNotInstalled if an administrator
	// of the company must install the app first. After any other error, such as a
	// *WaitError, the owner is not known. The Identity has what was found out before
	// the error; a ClientID means that the token was used.
	Identify(ctx context.Context, app Application, access token.Secret, company string) (Identity, error)
	// Revoke revokes the token and with it its pair. A token that is already dead or
	// unknown is no error. ErrCredentialsRefused.
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

// Answer is the result of one redeem.
type Answer struct {
	Class  Class
	Body   token.Secret  // of a Captured answer, as far as it arrived
	Wait   time.Duration // how long the server asks to wait, with any class; 0 if it did not say
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
	UnknownResult Class = "unknown_result" // anything else: whether it is spent is not known
)

// Judgement is the result of parsing a body.
type Judgement struct {
	Verdict Verdict
	Pair    token.Pair // of Sound, Salvaged and AccessOnly
	Reason  string     // of the others and of Salvaged; for people, without anything secret
}

// Verdict says what a body contains.
type Verdict string

const (
	Sound         Verdict = "sound"
	Salvaged      Verdict = "salvaged"      // malformed, exactly one plausible refresh token; Pair may be incomplete
	AccessOnly    Verdict = "access_only"   // sound, but without a refresh token
	Empty         Verdict = "empty"         // nothing, or text without a whole refresh token in it
	Contradictory Verdict = "contradictory" // several different refresh tokens: a person must decide
	Unreadable    Verdict = "unreadable"    // bytes in no known encoding: a person or a newer program must decide
)

// FollowUps requests a later run. Delivery is at least once and may be late.
type FollowUps interface {
	// Send requests that request be carried out after delay, which is at most MaxDelay.
	Send(ctx context.Context, request Request, delay time.Duration) error
}

// RateLimiter is one rate for all runs of an installation. It keeps a clock for each name
// and makes reservations in order. It is safe for concurrent use by many processes. A
// reservation is lost if its process ends first, or if the transport repeats the call.
type RateLimiter interface {
	// Reserve makes the next reservation and returns its time: the clock or, if later,
	// earliest. It sets the clock to that time plus every.
	Reserve(ctx context.Context, name string, earliest time.Time, every time.Duration) (time.Time, error)
}

// MaxDelay is the longest delay that FollowUps must support: that of Amazon SQS. A
// request with a later NotBefore is sent again in hops.
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
	Summary     string           `json:"summary"` // what happened, to which connection, and what to do
	// Link is where a person can allow access again, if a link could be created. It is
	// not in the log, because anyone with it can authorize the connection.
	Link token.Secret `json:"-"`
	At   time.Time    `json:"at"`
}

// NoticeClaims keeps, for all runs of an installation, which events are claimed: notices
// about many connections, and requests for a sweep, that were already sent. It is safe
// for concurrent use by many processes.
type NoticeClaims interface {
	// First claims an event until the given time. It reports whether the event was not
	// claimed at now.
	First(ctx context.Context, event string, now, until time.Time) (bool, error)
}

// Invitations creates links with which a person can consent to a connection again.
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
	NoticeUnsaved         = "unsaved" // an answer could not be saved in any store: the connection is probably lost
	NoticeLifetimeChanged = "lifetime_changed"
	NoticeClock           = "clock"             // the clocks of this machine and the server differ
	NoticeAppNotInstalled = "app_not_installed" // a consent waits for an administrator of the company
)

// Request is an operation as queue messages and direct calls have it.
type Request struct {
	Op            string    `json:"op"` // "sweep", "rotate", "ensure" or "publish"
	Connection    string    `json:"connection,omitempty"`
	MinTTLSeconds int64     `json:"min_ttl_seconds,omitempty"`
	Epoch         int64     `json:"epoch,omitempty"`      // of a follow-up: dropped once the
	Generation    int64     `json:"generation,omitempty"` // connection has moved on from here
	NotBefore     time.Time `json:"not_before,omitzero"`
	// of a sweep that a run has requested: only one of them works at a time, for a minute
	FollowUp bool `json:"follow_up,omitempty"`
}
