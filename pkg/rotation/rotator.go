package rotation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Config wires a Rotator. FollowUps, RateLimiter, Notifier, Log and Now may be left out.
type Config struct {
	Ledger       Ledger
	SecretStore  SecretStore
	Sealer       Sealer
	Applications Applications
	Issuer       Issuer
	FollowUps    FollowUps   // nil: the work of a follow-up waits for the next sweep
	RateLimiter  RateLimiter // nil: each process uses the whole rate
	Notifier     Notifier    // nil: notices are logged only
	// NoticeClaims limit notices about many connections, and requests for a sweep, to
	// one each. nil: one for each process.
	NoticeClaims NoticeClaims
	Invitations  Invitations // nil: notices name the command that creates a link
	Log          *slog.Logger
	Now          func() time.Time
	Settings     Settings
}

// Rotator rotates connections. It keeps only rates and claims between runs. It is safe for
// concurrent use, and any number of Rotators may work on one ledger.
type Rotator struct {
	engine      *engine
	secrets     SecretStore
	sealer      Sealer
	requests    *requester
	limiter     *limiter
	invitations Invitations // may be nil
}

// NewRotator checks the configuration.
func NewRotator(cfg Config) (*Rotator, error) {
	if cfg.Ledger == nil || cfg.SecretStore == nil || cfg.Sealer == nil || cfg.Applications == nil || cfg.Issuer == nil {
		return nil, errors.New("a rotator needs a ledger, a secret store, a sealer, applications and an issuer")
	}
	if err := cfg.Settings.Validate(); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	e := newEngine(engine{ledger: cfg.Ledger, apps: cfg.Applications, issuer: cfg.Issuer, notifier: cfg.Notifier,
		settings: cfg.Settings, log: cfg.Log, clock: cfg.Now}, cfg.NoticeClaims)
	return &Rotator{engine: e, secrets: cfg.SecretStore, sealer: cfg.Sealer, invitations: cfg.Invitations,
			requests: &requester{followUps: cfg.FollowUps, engine: e}, limiter: newLimiter(cfg.RateLimiter, cfg.Settings,
				e.log)},
		nil
}

// ErrBadRequest says that a Request is not one of the accepted forms.
var ErrBadRequest = errors.New(`accepted are {"op":"sweep"}, {"op":"rotate","connection":"environment/name"}, ` +
	`{"op":"ensure","connection":"environment/name","min_ttl_seconds":600} and ` +
	`{"op":"publish","connection":"environment/name"}`)

// Do carries out a request. ErrBadRequest if it is malformed. ErrNotHandedOn if a
// follow-up that it needs could neither be sent nor recorded, so that the request has to
// be repeated. Any other error means that nothing could be done at all. The report has
// the results of single connections.
func (r *Rotator) Do(ctx context.Context, request Request) (Report, error) {
	if request.Op == "sweep" && request.Connection == "" {
		return r.sweep(ctx, request)
	}
	c, err := token.ParseConnection(request.Connection)
	if err != nil && request.Op != "sweep" {
		err = fmt.Errorf("%w (%w)", ErrBadRequest, err)
	}
	switch {
	case request.Op == "rotate" && err == nil:
		return r.Rotate(ctx, c)
	case request.Op == "ensure" && err == nil && request.MinTTLSeconds > 0:
		return r.Ensure(ctx, c, request)
	case request.Op == "publish" && err == nil:
		return r.Publish(ctx, c)
	case err != nil:
		return Report{}, err
	}
	return Report{}, fmt.Errorf("op %.20q: %w", request.Op, ErrBadRequest)
}

// Sweep handles every connection that is due, the most overdue first. It leaves the
// connections that it has no time for to a follow-up sweep. Sweeps may overlap, and may be
// requested twice or late: each lists again what is due, and sweeps that handle the same
// connection find each other's attempt.
func (r *Rotator) Sweep(ctx context.Context) (Report, error) { return r.sweep(ctx, Request{}) }

// followUpTime is how long a follow-up sweep begins connections. No second one works
// during that time, because the queue has few consumers and other requests wait for them.
const followUpTime = time.Minute

func (r *Rotator) sweep(ctx context.Context, request Request) (Report, error) {
	started := time.Now()
	followUp := request.FollowUp
	if followUp {
		now := r.engine.clock()
		minute := now.Truncate(followUpTime) // named, so that a clock that is ahead claims its own time only
		event := "follow-up sweep at work " + minute.UTC().Format(time.RFC3339)
		if !r.engine.claims.first(ctx, event, now, minute.Add(followUpTime)) {
			r.requests.sweepBy(ctx, minute.Add(followUpTime))
			return skipped(started), nil
		}
	}
	var due []token.Connection
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) (err error) {
		due, err = r.engine.ledger.Due(ctx, r.engine.clock())
		return err
	})
	if err != nil {
		return r.notListed(ctx, request, fmt.Errorf("listing due connections: %w", err))
	}
	run := r.newRun()
	for _, c := range due {
		run.due[c.Environment]++
	}
	reports := make([]ConnectionReport, len(due))
	begun, handedOn := 0, false
	handOn := func() {
		if handedOn {
			return
		}
		handedOn = true
		delay := time.Duration(0)
		if begun == 0 || !followUp { // so that runs that never have time do not follow each other immediately
			delay = time.Minute
		}
		err = r.requests.sweepAt(ctx, r.engine.clock().Add(delay))
	}
	run.each(ctx, due, func(i int) bool {
		if !r.engine.settings.timeLeft(ctx, 0) || !run.breaker.hasTime(due[i].Environment) || followUp &&
			time.Since(started) >= followUpTime {
			handOn()
			return false
		}
		begun++
		return true
	}, func(i int, report ConnectionReport) { reports[i] = report }, situation{})
	run.notifyPending(ctx)
	if run.breaker.anyOutOfTime() || len(due) >= MaxDue {
		handOn()
	}
	reports = slices.DeleteFunc(reports, func(r ConnectionReport) bool { return r.Connection.IsZero() })
	report := newReport("sweep", started, reports)
	report.addHandedOn(len(due) - begun)
	return report, err
}

// notListed requests another sweep in place of one that could not list what is due. A
// follow-up sends itself again, so that the failure does not multiply the messages in the
// queue.
func (r *Rotator) notListed(ctx context.Context, request Request, err error) (Report, error) {
	if !request.FollowUp {
		r.requests.sweepBy(ctx, r.engine.clock().Add(time.Minute))
		return Report{}, err
	}
	r.engine.log.ErrorContext(ctx, "a follow-up sweep could not list what is due; it is sent again", "error", err)
	if unsent := r.requests.send(ctx, request, 2*time.Minute); unsent != nil {
		return Report{}, errors.Join(err, unsent)
	}
	return skipped(time.Now()), nil
}

// skipped is the report of a follow-up sweep that left the work to another one.
func skipped(started time.Time) Report {
	report := newReport("sweep", started, nil)
	report.Skipped = true
	return report
}

// Rotate replaces the pair of c, due or not, and presents a refused token again. It does
// not end a live attempt, a quiet period, a wait that the server asked for, or the put
// budget.
func (r *Rotator) Rotate(ctx context.Context, c token.Connection) (Report, error) {
	return r.one(ctx, "rotate", c, situation{force: true}), nil
}

// RotateAll does what Rotate does for each of several connections, as one run: app
// credentials are read once, and an app that is refused stops only its own connections.
// Once ctx is canceled, no further connection is begun, and those that were begun are
// finished. done, if not nil, is called with each report as it comes, never twice at a
// time.
func (r *Rotator) RotateAll(ctx context.Context, several []token.Connection, done func(ConnectionReport)) Report {
	started := time.Now()
	run := r.newRun()
	working := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		working, cancel = context.WithDeadline(working, deadline)
		defer cancel()
	}
	reports := make([]ConnectionReport, len(several))
	var mu sync.Mutex
	keep := func(i int, report ConnectionReport) {
		mu.Lock()
		defer mu.Unlock()
		reports[i] = report
		if done != nil {
			done(report)
		}
	}
	run.each(working, several, func(i int) bool {
		if ctx.Err() == nil {
			return true
		}
		keep(i, ConnectionReport{Connection: several[i], Outcome: Deferred, Detail: "interrupted before it was begun"})
		return false
	}, keep, situation{force: true})
	run.notifyPending(working)
	return newReport("rotate", started, reports)
}

// Ensure replaces the pair of c if its access token has less than MinTTLSeconds left. A
// request with an epoch is a follow-up: it is sent again until NotBefore, and dropped once
// the connection has a later epoch or generation.
func (r *Rotator) Ensure(ctx context.Context, c token.Connection, request Request) (Report, error) {
	if wait := request.NotBefore.Sub(r.engine.clock()); wait > 0 {
		if superseded, err := r.superseded(ctx, c, request); superseded || err != nil {
			return newReport("ensure", time.Now(), []ConnectionReport{{Connection: c, Outcome: Fresh}}), err
		}
		err := r.requests.send(ctx, request, wait)
		return newReport("ensure", time.Now(), []ConnectionReport{{Connection: c, Outcome: Deferred,
			RetryAt: request.NotBefore}}), err
	}
	s := situation{minTTL: time.Duration(request.MinTTLSeconds) * time.Second}
	if request.Epoch > 0 {
		s.onlyAt = &ResponseKey{Epoch: request.Epoch, Generation: request.Generation}
	}
	return r.one(ctx, "ensure", c, s), nil
}

// superseded reports whether the connection has a later epoch or generation than the one
// that a follow-up was requested for. A request that is no follow-up, or that waits longer
// than any token lives, is not sent again at all.
func (r *Rotator) superseded(ctx context.Context, c token.Connection, request Request) (bool, error) {
	if request.Epoch == 0 || request.NotBefore.Sub(r.engine.clock()) > daily {
		return false, fmt.Errorf("not_before needs epoch and generation and must be within a day: %w", ErrBadRequest)
	}
	rec, _, err := r.engine.load(ctx, c)
	return err == nil && after(rec.Epoch, rec.Generation, request.Epoch, request.Generation), err
}

// Publish takes the steps that spend nothing.
func (r *Rotator) Publish(ctx context.Context, c token.Connection) (Report, error) {
	return r.one(ctx, "publish", c, situation{publishOnly: true}), nil
}

func (r *Rotator) one(ctx context.Context, op string, c token.Connection, s situation) Report {
	started := time.Now()
	run := r.newRun()
	report := run.connection(ctx, c, s, nil)
	if s.force { // a person asks for this connection; follow-ups come in large numbers, one by one
		run.notifyPending(ctx)
	} else {
		run.leavePending(ctx)
	}
	return newReport(op, started, []ConnectionReport{report})
}

// EndWaits ends the waits of an environment after configuration errors, because somebody
// has fixed the configuration, and requests a sweep. It returns how many connections
// waited.
func (r *Rotator) EndWaits(ctx context.Context, archive Archive, environment string) (ended int, err error) {
	records, err := archive.List(ctx)
	if err != nil {
		return 0, err
	}
	ofConfig := func(f Failure) bool { return f.Class == classConfig }
	for _, rec := range records {
		if rec.Connection.Environment != environment || rec.Stack != r.engine.settings.Stack {
			continue
		}
		_, err := r.engine.update(ctx, rec.Connection, func(rec *Record, _ []TokenResponse) (Change, bool, error) {
			before := len(rec.Failures)
			rec.forget(ofConfig)
			if len(rec.Failures) == before {
				return Change{}, false, nil
			}
			ended++
			return Change{}, true, nil
		})
		if err != nil {
			return ended, err
		}
	}
	return ended, r.requests.send(ctx, Request{Op: "sweep", FollowUp: true}, 0)
}

// requester requests later runs.
type requester struct {
	followUps FollowUps // may be nil
	engine    *engine
}

// send requests a follow-up. It tries three times; then the error is ErrNotHandedOn.
func (q *requester) send(ctx context.Context, request Request, delay time.Duration) (err error) {
	if q.followUps == nil {
		return nil
	}
	ctx, cancel := outlive(ctx, 0)
	defer cancel()
	for try := range 3 {
		if try > 0 {
			select {
			case <-time.After(time.Duration(try) * time.Second):
			case <-ctx.Done():
			}
		}
		err = within(ctx, storeTimeout, func(ctx context.Context) error {
			return q.followUps.Send(ctx, request, max(0, min(delay, MaxDelay)))
		})
		if err == nil {
			return nil
		}
	}
	q.engine.log.WarnContext(ctx, "follow-up not sent", "op", request.Op, "connection", request.Connection, "error", err)
	return fmt.Errorf("%w: %w", ErrNotHandedOn, err)
}

// sweepBy requests a sweep soon after at, unless a scheduled sweep comes first or any
// process has requested one for the same window. Losing the request costs time, never a
// token: the row is due at that time, and the next sweep finds it.
func (q *requester) sweepBy(ctx context.Context, at time.Time) {
	if delay := at.Sub(q.engine.clock()); delay <= MaxDelay && delay <= q.engine.settings.Cadence {
		_ = q.sweepAt(ctx, at)
	}
}

// sweepWindow is the time within which one follow-up sweep serves all requests.
const sweepWindow = 30 * time.Second

// sweepAt requests a sweep at the end of the window in which at lies, unless any process
// has requested it. ErrNotHandedOn if it cannot be sent.
func (q *requester) sweepAt(ctx context.Context, at time.Time) error {
	if q.followUps == nil {
		return nil
	}
	now := q.engine.clock()
	comes := at.Truncate(sweepWindow).Add(sweepWindow)
	free, err := q.engine.claims.claim(ctx, "follow-up sweep "+comes.UTC().Format(time.RFC3339), now, comes)
	if err != nil { // not known: request at most one in followUpTime, or each sweep would cause several
		free = q.engine.claims.own("follow-up sweep without a claim", now, now.Add(followUpTime))
	}
	if !free {
		return nil
	}
	return q.send(ctx, Request{Op: "sweep", FollowUp: true}, comes.Sub(now))
}

// newID returns an id for an attempt, with 128 random bits, so that no two are equal.
func newID() string { return rand.Text() }
