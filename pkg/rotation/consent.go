package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

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

// ConsentsConfig wires Consents. FollowUps, Notifier, Log and Now may be left out.
type ConsentsConfig struct {
	Ledger       Ledger
	Sealer       Sealer // only DataKey is called
	Applications Applications
	Issuer       Issuer
	FollowUps    FollowUps // nil: the next sweep publishes
	Notifier     Notifier
	// NoticeClaims limit notices about an environment to one a day. nil: one a day for each process.
	NoticeClaims NoticeClaims
	Log          *slog.Logger
	Now          func() time.Time
	Settings     Settings
}

// Consents turns an authorization code into a connection's current pair. It can
// seal but not open, and it does not touch the secret store: a Rotator publishes
// what it decided. Safe for concurrent use.
type Consents struct {
	engine   *engine
	sealer   Sealer
	requests *requester
}

// NewConsents checks the configuration.
func NewConsents(cfg ConsentsConfig) (*Consents, error) {
	if cfg.Ledger == nil || cfg.Sealer == nil || cfg.Applications == nil || cfg.Issuer == nil {
		return nil, errors.New("consents need a ledger, a sealer, applications and an issuer")
	}
	if err := cfg.Settings.Validate(); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	e := newEngine(engine{ledger: cfg.Ledger, apps: cfg.Applications, issuer: cfg.Issuer, notifier: cfg.Notifier,
		settings: cfg.Settings, log: cfg.Log, clock: cfg.Now}, cfg.NoticeClaims)
	return &Consents{e, cfg.Sealer, &requester{cfg.FollowUps, e}}, nil
}

// Register makes sure that c has a ledger row and returns its record. A new row is
// Pending. It starts at the epoch that the secret store still shows from an earlier
// connection of that name, so that a new consent comes after it. ErrSecretDeleted if
// the secret is scheduled for deletion.
func Register(ctx context.Context, l Ledger, v SecretStore, stack string, c token.Connection) (Record, error) {
	return RegisterUntil(ctx, l, v, stack, c, time.Time{})
}

// RegisterUntil is Register for an invitation that expires at until. If nobody consents, the
// row expires with the last invitation (Record.InvitedUntil).
func RegisterUntil(ctx context.Context, l Ledger, v SecretStore, stack string, c token.Connection,
	until time.Time) (rec Record, err error) {
	for range maxSteps {
		err = within(ctx, 4*storeTimeout, func(ctx context.Context) error {
			rec, err = register(ctx, l, v, stack, c, until)
			return err
		})
		if !errors.Is(err, ErrConflict) {
			return rec, err
		}
	}
	return Record{}, fmt.Errorf("the row of %s kept changing: %w", c, ErrConflict)
}

func register(ctx context.Context, l Ledger, v SecretStore, stack string, c token.Connection,
	until time.Time) (Record, error) {
	rec, _, err := l.Load(ctx, c)
	if err == nil {
		err = rec.CheckStack(stack)
	}
	if err == nil && rec.Status == Pending && !rec.InvitedUntil.IsZero() && rec.InvitedUntil.Before(until) {
		rec.InvitedUntil = until.UTC()
		rec.Revision, err = l.Write(ctx, Change{Record: rec})
		return rec, err
	}
	if err != nil || rec.Revision != "" {
		return rec, err
	}
	rec = Record{Connection: c, Stack: stack, Status: Pending, InvitedUntil: until.UTC()}
	version, err := v.Current(ctx, c)
	switch {
	case errors.Is(err, ErrNoSecret) || errors.Is(err, ErrNoVersion):
	case err != nil:
		return Record{}, fmt.Errorf("looking for an earlier secret of %s: %w", c, err)
	default:
		if doc, err := token.ParseDocument(version.Value); err == nil && doc.Stack != stack {
			return Record{}, &otherStackError{c, stack, doc.Stack}
		} else if err == nil {
			rec.Epoch = doc.Epoch
		}
	}
	rec.Revision, err = l.Write(ctx, Change{Record: rec, History: []Event{{At: time.Now().UTC(), Kind: "registered",
		Epoch: rec.Epoch}}})
	return rec, err
}

// Uninvited makes the row of c expire earlier, because an invitation was revoked: when the
// last invitation that is left expires, which last returns, or now. Only a pending row that
// has such an end changes.
func Uninvited(ctx context.Context, l Ledger, c token.Connection, now time.Time,
	last func(context.Context) (time.Time, error)) error {
	for range maxSteps {
		rec, _, err := l.Load(ctx, c)
		if err != nil {
			return err
		}
		until, err := last(ctx)
		if err != nil {
			return err
		}
		until = later(until, now).UTC()
		if rec.Status != Pending || !until.Before(rec.InvitedUntil) {
			return nil
		}
		rec.InvitedUntil = until
		if _, err = l.Write(ctx, Change{Record: rec}); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("the row of %s kept changing: %w", c, ErrConflict)
}

// Standing is the state of a connection before a consent.
type Standing struct {
	Epoch  int64 // the epoch that the consent starts from
	Status Status
	Pin    *Pin // the owner of the connection; nil: nobody yet
	// ServiceAccount: the connection is the app's own.
	ServiceAccount bool
	// RefusedAt is when the issuer refused the refresh token; zero except in NeedsConsent.
	RefusedAt time.Time
}

// Standing returns the state of c. ErrNotRegistered.
func (s *Consents) Standing(ctx context.Context, c token.Connection) (Standing, error) {
	rec, _, err := s.engine.load(ctx, c)
	if err == nil && rec.Revision == "" {
		err = fmt.Errorf("%s: %w", c, ErrNotRegistered)
	}
	standing := Standing{Epoch: rec.Epoch, Status: rec.Status, Pin: rec.Pin, ServiceAccount: rec.ServiceAccount}
	if rec.Status == NeedsConsent && rec.Refusal != nil {
		standing.RefusedAt = rec.Refusal.At
	}
	return standing, err
}

// Exchange is one code exchange, with everything prepared that could fail early.
type Exchange struct {
	s     *Consents
	conn  token.Connection
	epoch int64
	pin   *Pin // of an earlier consent
	app   Application
	key   *dataKey
}

// Prepare does everything that can fail before the code is spent. It also makes the
// connection due, so that a sweep comes for it if this process dies on the way. Call
// it before the state is consumed. ErrNotRegistered, ErrSuperseded, ErrNoApplication.
func (s *Consents) Prepare(ctx context.Context, c token.Connection, epoch int64) (*Exchange, error) {
	x := &Exchange{s: s, conn: c, epoch: epoch}
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) (err error) {
		if x.app, err = s.engine.apps.Application(ctx, c.Environment); err != nil {
			return fmt.Errorf("reading the app credentials for %s: %w", c, err)
		}
		if x.key, err = newKeyring(s.sealer).ready(ctx); err != nil {
			return fmt.Errorf("preparing to save the answer for %s: %w", c, err)
		}
		x.pin, err = s.expect(ctx, c, epoch)
		return err
	})
	return x, err
}

// expect makes the connection due for the time when the exchange is over, so that a
// sweep finds what this process may leave behind. It returns the owner so far.
func (s *Consents) expect(ctx context.Context, c token.Connection, epoch int64) (*Pin, error) {
	rec, err := s.engine.update(ctx, c, func(rec *Record, _ []TokenResponse) (Change, bool, error) {
		switch {
		case rec.Revision == "":
			return Change{}, false, fmt.Errorf("%s: %w", c, ErrNotRegistered)
		case rec.Epoch != epoch:
			return Change{}, false, fmt.Errorf("%s: %w", c, ErrSuperseded)
		case rec.Stack != s.engine.settings.Stack:
			return Change{}, false, &otherStackError{c, s.engine.settings.Stack, rec.Stack}
		}
		over := s.engine.clock().Add(s.engine.settings.Lease + s.engine.settings.Quiet).UTC()
		rec.SearchAt = later(rec.SearchAt, over)
		return Change{}, true, nil
	})
	return rec.Pin, err
}

// ConsentResult says how an exchange ended.
type ConsentResult string

const (
	// Connected: the pair is saved and current.
	Connected ConsentResult = "connected"
	// Verifying: the pair is saved; its owner could not be checked yet. A later
	// run decides.
	Verifying ConsentResult = "verifying"
	// NotInstalled: the pair is saved; an administrator of the company has to install
	// the app. Runs check again until then.
	NotInstalled ConsentResult = "app_not_installed"
	// WrongIdentity: another user, company or client than expected; the pair is rejected and revoked.
	WrongIdentity ConsentResult = "wrong_identity"
	// CodeRefused: the issuer refused the code (expired, used, or not for this client).
	CodeRefused ConsentResult = "code_refused"
	// Superseded: see ErrSuperseded; the pair is revoked.
	Superseded ConsentResult = "superseded"
	// Misconfigured: the app credentials or the redirect URI are wrong.
	Misconfigured ConsentResult = "misconfigured"
	// Unavailable: the issuer was not reached or asked to wait; nothing was spent.
	Unavailable ConsentResult = "unavailable"
	// Lost: the answer was lost or unusable; the person must consent again.
	Lost ConsentResult = "lost"
)

// Consent is what came back from the authorization endpoint.
type Consent struct {
	Code        token.Secret
	RedirectURI string // as sent to the authorization endpoint
	Verifier    token.Secret
	Expect      Identity
}

// Redeem exchanges the code once, or once more with the second client secret if the server
// does not accept the first, saves the pair, checks its owner and makes it
// current. The error explains every result except Connected and contains nothing
// secret. From the POST on, canceling ctx has no effect.
func (x *Exchange) Redeem(ctx context.Context, consent Consent) (ConsentResult, error) {
	if !x.s.engine.settings.timeLeft(ctx, 0) {
		return Unavailable, fmt.Errorf("exchanging the code for %s: %w to save the answer; the code was not used", x.conn,
			errNoTime)
	}
	answer := x.present(ctx, Grant{Code: consent.Code, RedirectURI: consent.RedirectURI, Verifier: consent.Verifier})
	cause := fmt.Errorf("exchanging the code for %s: %s", x.conn, answer.Detail)
	switch answer.Class {
	case Captured:
		return x.captured(ctx, consent.Expect, answer.Body)
	case Refused:
		return CodeRefused, cause
	case ClientFault, GrantFault, RequestFault:
		return Misconfigured, cause
	case RateLimited, NotSent:
		return Unavailable, cause
	}
	return Lost, cause
}

// present presents the grant with one POST, and with another one if the server does not
// accept the first client secret: it has authenticated nobody then, so nothing is spent.
// Canceling ctx ends neither.
func (x *Exchange) present(ctx context.Context, grant Grant) Answer {
	e := x.s.engine
	post := func(app Application) Answer {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.settings.RedeemTimeout)
		defer cancel()
		return e.issuer.Redeem(ctx, app, grant)
	}
	answer := post(x.app)
	other, hasOther := x.app.other()
	switch {
	case !hasOther || answer.Class != ClientFault:
		return answer
	case !e.settings.timeLeft(ctx, 0):
		return Answer{Class: NotSent, Detail: "no time left to try the second client secret"}
	}
	return post(other)
}

func (x *Exchange) captured(ctx context.Context, expect Identity, body token.Secret) (ConsentResult, error) {
	m := x.response(FromCode, body)
	m.Company, m.Expect = expect.Company, &expect
	if m.Company == "" && x.pin != nil {
		m.Company = x.pin.Company
	}
	if _, err := x.s.engine.save(ctx, m, nil); err != nil {
		x.s.engine.notify(ctx, NoticeUnsaved, x.conn, "A new consent for %s could not be saved. "+
			"When the ledger works again, run `tokenturn connection invite %[1]s` and send the person the link.", x.conn)
		return Lost, err
	}
	return x.s.adoptConsent(ctx, x, m, body)
}

func (x *Exchange) response(source Source, body token.Secret) TokenResponse {
	m := TokenResponse{Connection: x.conn, Key: ResponseKey{x.epoch + 1, 0, newID()}, Source: source,
		SavedAt: x.s.engine.clock().UTC().Truncate(time.Millisecond), State: Saved, APIURL: x.app.APIURL,
		Stack: x.s.engine.settings.Stack}
	if source != FromImport { // nobody knows to which app an imported token was issued
		m.Client = x.app.client()
	}
	m.Sealed = x.key.seal(body, x.conn, m.Key)
	return m
}

// adoptConsent decides a saved consent and returns the result. A consent that it
// leaves undecided is made due, and handed to a run if there is a queue.
func (s *Consents) adoptConsent(ctx context.Context, x *Exchange, m TokenResponse, body token.Secret) (ConsentResult,
	error) {
	ctx, cancel := outlive(ctx, 0)
	defer cancel()
	defer func() { _ = s.requests.send(ctx, Request{Op: "publish", Connection: x.conn.String()}, 0) }()
	for range maxSteps {
		rec, responses, err := s.engine.load(ctx, x.conn)
		if err != nil {
			return Verifying, err
		}
		if result, err := s.resultSoFar(ctx, x, m, rec, responses); result != "" {
			return result, err
		}
		next, _, err := s.engine.decideOn(ctx, rec, responses, m, body, false)
		switch _, wrong := errors.AsType[*identityError](err); {
		case errors.Is(err, ErrConflict):
			continue
		case wrong:
			s.revokeRejected(ctx, x.app, rec, body)
			return WrongIdentity, err
		case errors.Is(err, ErrAppNotInstalled):
			s.makeDue(ctx, rec, responses)
			return NotInstalled, err
		case err != nil:
			s.makeDue(ctx, rec, responses)
			return Verifying, err
		case next.Current == nil || next.Current.Response != m.Key:
			return Lost, fmt.Errorf("the answer for %s has no usable pair", x.conn)
		}
		return Connected, nil
	}
	return Verifying, fmt.Errorf("other writers kept changing the row of %s; a later run decides the consent", x.conn)
}

// resultSoFar returns the result if a run or a later consent has decided about the
// saved consent meanwhile; empty: not yet.
func (s *Consents) resultSoFar(ctx context.Context, x *Exchange, m TokenResponse, rec Record,
	responses []TokenResponse) (ConsentResult, error) {
	i := slices.IndexFunc(responses, func(other TokenResponse) bool { return other.Key == m.Key })
	switch {
	case rec.Current != nil && rec.Current.Response == m.Key:
		return Connected, nil
	case rec.Epoch != x.epoch:
		s.makeDue(ctx, rec, responses) // an orphan now; a run revokes it
		return Superseded, fmt.Errorf("%s: %w", x.conn, ErrSuperseded)
	case i < 0:
		return WrongIdentity, fmt.Errorf("%s: the consent was rejected by a run that checked it first", x.conn)
	case responses[i].State == Rejected:
		return WrongIdentity, fmt.Errorf("%s: %s", x.conn, responses[i].Reason)
	case responses[i].State == Quarantined:
		return Lost, fmt.Errorf("the answer for %s has no usable pair", x.conn)
	}
	return "", nil
}

// makeDue writes the row again, so that its due time takes the saved response into
// account. If that fails, the time that Prepare has set still holds.
func (s *Consents) makeDue(ctx context.Context, rec Record, responses []TokenResponse) {
	if _, _, err := s.engine.write(ctx, rec, responses, Change{}); err != nil {
		s.engine.log.WarnContext(ctx, "a saved consent was not made due; a sweep finds it later", "connection",
			rec.Connection.String(), "error", err)
	}
}

// revokeRejected revokes a pair that was just marked as rejected, unless the server
// answered with the current pair. If that fails, the next run does it.
func (s *Consents) revokeRejected(ctx context.Context, app Application, rec Record, body token.Secret) {
	pair := s.engine.issuer.Parse(body).Pair
	if rec.Current != nil && lineage(pair) == rec.Current.Fingerprint {
		return
	}
	half := pair.AccessToken // revoking either half ends the pair
	if half.IsZero() {
		half = pair.RefreshToken
	}
	err := s.engine.endToken(ctx, app, half)
	if other, hasOther := app.other(); hasOther && errors.Is(err, ErrCredentialsRefused) {
		err = s.engine.endToken(ctx, other, half)
	}
	if err != nil {
		s.engine.log.WarnContext(ctx, "rejected pair not revoked yet; the next run does it", "error", err)
	}
}
