package rotation

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// run is what the connections of one run share: data keys, app credentials that are read
// once, the circuit breaker, and the notices to send at its end.
type run struct {
	engine      *engine
	secrets     SecretStore
	invitations Invitations
	requests    *requester
	limiter     *limiter
	keys        *keyring
	breaker     *breaker
	slots       chan struct{}  // has an element for each connection that is being handled
	due         map[string]int // by environment: how many connections this run has to handle
	apps        memo[string, Application]

	mu      sync.Mutex // never held across a call of a port
	pending []Record   // connections that need a consent, with a notice still to be sent
}

func (r *Rotator) newRun() *run {
	e := r.engine
	return &run{engine: e, secrets: r.secrets, invitations: r.invitations, requests: r.requests, limiter: r.limiter,
		keys: newKeyring(r.sealer), breaker: newBreaker(e.log, e.clock), slots: make(chan struct{}, e.settings.Concurrency),
		due: map[string]int{}}
}

// each handles every connection, as many at once as there are slots. begin reports
// whether a connection is still to be begun.
func (r *run) each(ctx context.Context, connections []token.Connection, begin func(int) bool,
	done func(int, ConnectionReport), s situation) {
	var group errgroup.Group
	for i, c := range connections {
		place := &slot{of: r.slots}
		place.take(context.WithoutCancel(ctx))
		if !begin(i) {
			place.release()
			continue
		}
		group.Go(func() error {
			defer place.release()
			done(i, r.connection(ctx, c, s, place))
			return nil
		})
	}
	_ = group.Wait()
}

// slot is the right of one connection to be handled. Not safe for concurrent use.
type slot struct {
	of   chan struct{} // has an element for each slot that is held
	held bool
}

// take waits for a slot. It gives up when ctx ends.
func (s *slot) take(ctx context.Context) {
	select {
	case s.of <- struct{}{}:
		s.held = true
	case <-ctx.Done():
	}
}

// release frees the slot, if it is held. It never frees that of another connection.
func (s *slot) release() {
	if s.held {
		<-s.of
		s.held = false
	}
}

// sleep waits without using a slot.
func (t *reconciliation) sleep(ctx context.Context, d time.Duration) error {
	if t.slot != nil {
		t.slot.release()
		defer t.slot.take(ctx)
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// application reads the app credentials of an environment once per run. There is time for
// another read after one that hangs.
func (r *run) application(ctx context.Context, environment string) (app Application, err error) {
	err = within(ctx, 4*storeTimeout, func(ctx context.Context) error {
		app, err = r.apps.get(ctx, environment, func(ctx context.Context) (Application, error) {
			return r.engine.readApplication(ctx, environment)
		})
		return err
	})
	return app, err
}

// otherCredentials reads the app credentials again after they were refused. It reports
// whether there are others to try: new ones, or the second client secret.
func (r *run) otherCredentials(ctx context.Context, refused Application) bool {
	app, err := r.engine.readApplication(ctx, refused.Environment)
	if err != nil {
		return false
	}
	second, hasSecond := app.other()
	switch refused {
	case second: // both were refused
		return false
	case app:
		if !hasSecond {
			return false
		}
		app = second
	}
	r.apps.set(refused.Environment, app)
	return true
}

// connection handles one connection. No error of it, not even a panic, affects another
// connection.
func (r *run) connection(ctx context.Context, c token.Connection, s situation,
	place *slot) (report ConnectionReport) {
	defer func() {
		if p := recover(); p != nil {
			r.engine.log.ErrorContext(ctx, "panic", "connection", c.String(), "panic", fmt.Sprintf("%T", p), "stack",
				string(debug.Stack()))
			report = ConnectionReport{Connection: c, Outcome: Failed, Detail: "internal error; see the log"}
		}
		r.engine.log.InfoContext(ctx, "connection handled", "connection", c.String(), "outcome", report.Outcome,
			"epoch", report.Epoch, "generation", report.Generation, "detail", report.Detail)
	}()
	s.settings, s.failed = r.engine.settings, map[act]bool{}
	t := &reconciliation{situation: s, engine: r.engine, run: r, conn: c, slot: place, begun: time.Now(),
		bodies: map[ResponseKey]token.Secret{}}
	report = t.loop(ctx)
	if t.hasPermit {
		r.limiter.giveBack(c.Environment)
	}
	switch {
	case report.Outcome == Failed:
		r.requests.sweepBy(ctx, r.engine.clock().Add(time.Minute))
	case waits(report.Outcome) && report.Outcome != Busy && !report.RetryAt.IsZero():
		r.requests.sweepBy(ctx, report.RetryAt)
	case report.Outcome == ConsentNeeded && t.rec.Refusal.presents():
		r.requests.sweepBy(ctx, t.rec.Refusal.NextAt)
	}
	for _, f := range t.rec.Failures {
		if f.Step == Decide && f.Class != classQuarantine { // a consent that waits, even if all else works
			r.requests.sweepBy(ctx, f.NextAt)
		}
	}
	if t.rec.NoticePending {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pending = append(r.pending, t.rec)
	}
	return report
}

// reconciliation is the work of one run on one connection: load, plan, act, until
// nothing is left to do.
type reconciliation struct {
	situation
	engine *engine
	run    *run
	conn   token.Connection
	slot   *slot // nil: a single connection, which needs none

	loaded         bool                         // the situation is up to date with the ledger, as far as this run knows
	found          *Record                      // the row as it was first loaded
	stored         Record                       // the row as it was last loaded or written
	bodies         map[ResponseKey]token.Secret // answers received or opened
	did            Outcome                      // Published or Recovered, once this run has done that
	detail         string                       // of the last failure
	refusedAttempt string                       // id of the attempt that the issuer refused
	seen           *secretView                  // of the secret before the refresh token was presented; nil once used
	hasPermit      bool                         // from the rate limiter, not used yet
	drifted        bool                         // people were notified of a drift
	begun          time.Time                    // by the clock of this process
	escrowTried    bool                         // escrow was tried for an answer, and may count as a version
}

// maxSteps bounds the loop. A loop that repairs everything that can be wrong takes fewer
// than ten steps.
const maxSteps = 30

func (t *reconciliation) loop(ctx context.Context) ConnectionReport {
	for range maxSteps {
		if err := t.load(ctx); err != nil {
			return t.report(Failed, time.Time{}, err)
		}
		if t.rec.Revision == "" {
			return t.report(NotFound, time.Time{}, nil)
		}
		if t.rec.Stack != t.engine.settings.Stack { // another installation, with other keys
			t.postponeOtherStack(ctx)
			return t.report(ConfigError, time.Time{}, &otherStackError{t.conn, t.engine.settings.Stack, t.rec.Stack})
		}
		m := plan(t.situation)
		if m.outcome != "" {
			return t.end(ctx, m)
		}
		end, err := t.act(ctx, m)
		switch {
		case errors.Is(err, ErrConflict): // another writer was faster: see what is left to do
			t.loaded = false
		case err != nil:
			return t.report(Failed, time.Time{}, err)
		case end != nil:
			return *end
		}
	}
	return t.report(Failed, time.Time{}, errors.New("other writers kept changing the row; the next run continues"))
}

// load reads the row, unless this run already knows it from its own last write.
func (t *reconciliation) load(ctx context.Context) error {
	if !t.loaded {
		rec, responses, err := t.engine.load(ctx, t.conn)
		if err != nil {
			return err
		}
		t.set(rec, responses)
		if t.found == nil {
			t.found = &rec
		}
		t.dropFixedConfigFailures(ctx)
	}
	t.now = t.engine.clock()
	return nil
}

// set replaces the row and the responses of the situation.
func (t *reconciliation) set(rec Record, responses []TokenResponse) {
	t.rec, t.stored, t.responses, t.loaded = rec.clone(), rec, responses, true
}

// dropFixedConfigFailures drops the failures of class config that are about app
// credentials other than the present ones.
func (t *reconciliation) dropFixedConfigFailures(ctx context.Context) {
	for _, f := range t.rec.Failures {
		if f.Class != classConfig || !strings.HasPrefix(f.Cause, causeApp) {
			continue
		}
		app, err := t.run.application(ctx, t.conn.Environment)
		if err != nil && !errors.Is(err, ErrNoApplication) {
			return
		}
		if now := causeOf(app); now != f.Cause {
			t.rec.forget(func(f Failure) bool {
				return f.Class == classConfig && strings.HasPrefix(f.Cause, causeApp) && f.Cause != now
			})
			return
		}
	}
}

// postponeOtherStack moves the due time of another installation's row to the next sweep,
// if that installation has let its token expire. Otherwise the row would stay at the head
// of the list forever. Until then it stays due, so that a run of that installation that
// comes late, or comes again after a crash, finds it.
func (t *reconciliation) postponeOtherStack(ctx context.Context) {
	const patience = 10 * time.Minute
	now, given := t.engine.clock(), t.rec.DueAt
	if t.rec.Status == Active && t.rec.Current != nil {
		given = later(given, t.rec.Current.ExpiresAt)
	}
	if t.rec.DueAt.IsZero() || now.Sub(given) < patience {
		return
	}
	rec := t.rec
	rec.DueAt = now.Add(t.engine.settings.Cadence).UTC()
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) error {
		_, err := t.engine.ledger.Write(ctx, Change{Record: rec})
		return err
	})
	if err != nil {
		t.engine.log.WarnContext(ctx, "the row of another installation stays due", "connection", t.conn.String(), "error",
			err)
	}
}

// act takes one step. A report ends the run for this connection. So does an error, except
// ErrConflict.
func (t *reconciliation) act(ctx context.Context, m move) (*ConnectionReport, error) {
	switch m.step {
	case Decide:
		return t.decide(ctx, m.response)
	case Publish:
		return t.publish(ctx)
	case Recover:
		return t.recover(ctx)
	case Redeem:
		return t.redeem(ctx)
	case Revoke:
		return t.revoke(ctx, m.response)
	}
	return nil, fmt.Errorf("step %q of %s is unknown", m.step, t.conn)
}

// end ends the run for this connection. It replaces a due time that has passed;
// otherwise the row would stay at the head of the list.
func (t *reconciliation) end(ctx context.Context, m move) ConnectionReport {
	if a := t.rec.Attempt; a != nil && m.outcome == Busy && a.ahead(t.now) && a.unseen(t.now) {
		a.Seen = t.now.UTC()
		t.run.requests.sweepBy(ctx, t.now.Add(t.engine.settings.Lease+t.engine.settings.Quiet))
		if err := t.write(ctx, Change{}); err != nil && !errors.Is(err, ErrConflict) {
			return t.report(Failed, time.Time{}, err)
		}
	}
	if !t.rec.DueAt.IsZero() && !t.rec.DueAt.After(t.now) && m.outcome != Busy {
		rec := t.rec
		rec.DueAt = t.found.DueAt
		if due := t.engine.settings.dueAt(rec, t.responses, t.now); !due.Equal(t.rec.DueAt) && !(t.rec.NoticePending &&
			!due.After(t.now)) {
			if err := t.write(ctx, Change{}); err != nil && !errors.Is(err, ErrConflict) {
				return t.report(Failed, time.Time{}, err)
			}
		}
	}
	if m.outcome == Fresh {
		m.outcome = t.achieved()
	}
	return t.report(m.outcome, m.retryAt, nil)
}

// achieved is the outcome for a connection that has nothing more to do: what this run did.
func (t *reconciliation) achieved() Outcome {
	switch {
	case t.did == Recovered:
		return Recovered
	case t.obtainedCurrent():
		return Rotated
	case t.did != "":
		return t.did
	}
	return Fresh
}

// write stores t.rec together with the change. If that fails, t.rec is reset to the last
// stored row, and the row is loaded again.
func (t *reconciliation) write(ctx context.Context, change Change) error {
	if t.escrowTried { // it counts against the secret store's limit
		t.rec.Puts = append(t.recentPuts(), t.engine.clock().Unix())
	}
	t.rec.DueAt = t.found.DueAt // all writes of a run together put it off once
	rec, responses, err := t.engine.write(ctx, t.rec, t.responses, change)
	if err != nil {
		t.rec, t.loaded = t.stored.clone(), false
		return err
	}
	t.escrowTried = false
	t.set(rec, responses)
	return nil
}

func (t *reconciliation) report(outcome Outcome, retryAt time.Time, err error) ConnectionReport {
	r := ConnectionReport{Connection: t.conn, Outcome: outcome, Epoch: t.rec.Epoch, Generation: t.rec.Generation,
		RetryAt: retryAt, Detail: t.detail,
		Versions: len(t.recentPuts()), Unpublished: t.rec.unpublished() && outcome != Busy}
	if t.rec.Current != nil {
		r.ExpiresAt = t.rec.Current.ExpiresAt
	}
	if outcome == Busy {
		r.Refreshing = t.engine.settings.Refreshing(t.rec, t.now)
	}
	if t.found != nil && outcome == Rotated && t.found.Current != nil && !t.found.Current.ExpiresAt.IsZero() &&
		t.found.Epoch == t.rec.Epoch {
		r.Lapsed = max(0, t.rec.Current.SavedAt.Sub(t.found.Current.ExpiresAt))
	}
	if r.Detail == "" && (outcome == Deferred || outcome == ConfigError) {
		for _, f := range t.rec.Failures {
			if f.NextAt.Equal(retryAt) || r.Detail == "" {
				r.Detail = f.Detail
			}
		}
	}
	if err != nil {
		r.Detail = err.Error()
	}
	return r
}

// Classes of failures, as stored.
const (
	classConfig      = "config"
	classRateLimited = "rate_limited" // the server asked for the wait
	classNotSent     = "not_sent"
	classStore       = "store"
	classIssuer      = "issuer"
	classBudget      = "budget"
	classOdd         = "odd_refusal" // becomes config when it repeats
	classQuarantine  = "quarantine"  // judged again daily
)

// causeApp begins the cause of a failure that ends with other app credentials.
const causeApp = "app:"

// causeOf identifies the app credentials without revealing them, whichever of the two
// client secrets comes first.
func causeOf(app Application) string {
	secrets := []string{app.ClientSecret.Reveal(), app.SecondSecret.Reveal()}
	slices.Sort(secrets)
	return causeApp + string(token.NewSecret(app.ClientID+"\x00"+strings.Join(secrets, "\x00")).Fingerprint())
}

// failure makes one step for one response wait, in this run and in later ones. All other
// steps go on. wait 0 means the usual back-off.
func (t *reconciliation) failure(ctx context.Context, step Step, key ResponseKey, class string, wait time.Duration,
	cause error, history ...Event) (*ConnectionReport, error) {
	t.failed[act{step, key}] = true
	f := Failure{Step: step, Response: key, Class: class, Count: 1, Detail: cause.Error()}
	if ofApp, ok := errors.AsType[*appError](cause); ok {
		f.Cause = causeOf(ofApp.app)
	}
	if old := t.rec.failure(step, key); old != nil && (old.Class == class || old.Class == classOdd &&
		class == classConfig && f.Cause == "") {
		f.Count = old.Count + 1
	}
	if wait <= 0 {
		wait = backOff(class, f.Count)
	}
	f.NextAt = t.engine.clock().Add(wait).UTC()
	if old := t.rec.failure(step, key); class == classConfig && (old == nil || old.Class != classConfig ||
		old.Cause != f.Cause) {
		// Another writer may have changed the row while this run waited for its permit, and with it the cause.
		if now, _, err := t.engine.load(ctx, t.conn); err == nil && now.Revision != t.rec.Revision {
			delete(t.failed, act{step, key})
			t.rec, t.loaded = t.stored.clone(), false
			return nil, errors.Join(ErrConflict, cause)
		}
		t.engine.notifyOfConfigError(ctx, t.conn, cause)
	}
	t.rec.setFailure(f)
	t.detail = f.Detail
	err := t.write(ctx, Change{History: history})
	if errors.Is(err, ErrConflict) { // the row has changed, perhaps that is why the step failed
		delete(t.failed, act{step, key})
	}
	if err != nil {
		return nil, errors.Join(err, cause)
	}
	return nil, nil // plan sees the failure and decides what follows
}

func backOff(class string, count int) time.Duration {
	first := 30 * time.Second
	if class == classConfig {
		first = time.Minute
	}
	return min(first<<min(count-1, 10), 15*time.Minute)
}

// open returns the body of a response.
func (t *reconciliation) open(ctx context.Context, m TokenResponse) (body token.Secret, err error) {
	if body, ok := t.bodies[m.Key]; ok {
		return body, nil
	}
	err = within(ctx, 2*storeTimeout, func(ctx context.Context) error {
		body, err = t.run.keys.open(ctx, m.Sealed, m.Connection, m.Key)
		return err
	})
	if err == nil {
		t.bodies[m.Key] = body
	}
	return body, err
}

// openFailed: a response cannot be opened. The cause is more often a wrong setting than
// damage, so the failure must end once the setting is right.
func (t *reconciliation) openFailed(ctx context.Context, step Step, key ResponseKey, err error) (*ConnectionReport,
	error) {
	if !errors.Is(err, ErrUnsealable) {
		return t.failure(ctx, step, key, classStore, 0, err)
	}
	remedy := "invite the person again: `tokenturn connection invite " + t.conn.String() + "`"
	if step == Decide {
		remedy = "run `tokenturn connection discard " + t.conn.String() + "`"
	}
	return t.failure(ctx, step, key, classConfig, 0, fmt.Errorf("a saved answer of %s cannot be opened: "+
		"check TOKENTURN_STACK and TOKENTURN_SEAL_KEY (on one machine, the key file); if it is damaged, %s: %w", t.conn,
		remedy, err))
}
