package rotation

import (
	"context"
	"errors"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Errors of Consents.
var (
	// ErrNotRegistered: the connection has no ledger row.
	ErrNotRegistered = errors.New("the connection is not registered")
	// ErrSuperseded: the connection has had another consent, import or
	// disconnect since the epoch that this consent started from.
	ErrSuperseded = errors.New("the connection has changed since this consent was started")
)

// ConsentsConfig wires Consents. All fields but FollowUps and Notifier are required.
type ConsentsConfig struct {
	Ledger       Ledger
	Sealer       Sealer // only DataKey is called
	Applications Applications
	Issuer       Issuer
	FollowUps    FollowUps // nil: the next sweep publishes
	Notifier     Notifier
	Settings     Settings
}

// Consents turns an authorization code into a connection's current pair. It can
// seal but not open, and it does not touch the vault: what it publishes is
// left to a Rotator. Safe for concurrent use.
type Consents struct{ cfg ConsentsConfig }

// Exchange is one code exchange with everything at hand that could fail early.
type Exchange struct{}

// ConsentResult says how an exchange ended.
type ConsentResult string

const (
	// Connected: the pair is saved and current.
	Connected ConsentResult = "connected"
	// Verifying: the pair is saved; whose it is could not be checked yet. A
	// later run decides.
	Verifying ConsentResult = "verifying"
	// WrongIdentity: another user, company or client than expected; the pair is rejected and revoked.
	WrongIdentity ConsentResult = "wrong_identity"
	// CodeRefused: the issuer refused the code (expired, used, or not for this client).
	CodeRefused ConsentResult = "code_refused"
	// Superseded: see ErrSuperseded; the pair is rejected and revoked.
	Superseded ConsentResult = "superseded"
	// Misconfigured: the app credentials or the redirect URI are wrong.
	Misconfigured ConsentResult = "misconfigured"
	// Unavailable: the issuer was not reached or asked to wait; nothing was spent.
	Unavailable ConsentResult = "unavailable"
	// Lost: the answer was lost or unusable; the person must allow again.
	Lost ConsentResult = "lost"
)

// Consent is what came back from the authorization endpoint.
type Consent struct {
	Code        token.Secret
	RedirectURI string
	Verifier    token.Secret
	Expect      Identity
}

// Register makes sure that c has a ledger row, as Pending if it is new, and
// returns its record.
func Register(ctx context.Context, l Ledger, v Vault, stack string, c token.Connection) (Record, error) {
	panic("to come")
}

// NewConsents checks the configuration.
func NewConsents(cfg ConsentsConfig) (*Consents, error) { panic("to come") }

// Epoch returns the epoch that a consent for c starts from. ErrNotRegistered.
func (s *Consents) Epoch(ctx context.Context, c token.Connection) (int64, error) { panic("to come") }

// Prepare does everything that can fail before the code is spent, and makes
// the sweep look at the connection soon should this process die. Call it
// before the state is consumed. ErrNotRegistered, ErrSuperseded, ErrNoApplication.
func (s *Consents) Prepare(ctx context.Context, c token.Connection, epoch int64) (*Exchange, error) {
	panic("to come")
}

// Redeem exchanges the code, once, saves the pair, checks whose it is and makes
// it current. The error explains every result but Connected and contains
// nothing secret. The pair is saved even if ctx is cancelled meanwhile.
func (x *Exchange) Redeem(ctx context.Context, consent Consent) (ConsentResult, error) {
	panic("to come")
}
