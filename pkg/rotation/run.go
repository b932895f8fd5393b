package rotation

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// run is what the connections handled together share: data keys, app
// credentials read once, and what was learnt about an app on the way.
type run struct {
	*Rotator
	keys      *keyring
	outOfTime atomic.Bool
	handedOn  sync.Once

	appsMu sync.Mutex // never held across a call of a port
	known  map[string]Application
	faults map[string]int  // connections whose request an environment called faulty
	lost   map[string]int  // answers of an environment that were lost
	stop   map[string]halt // why no more is presented to an environment in this run
	untold []Record        // connections that need a consent, of which nobody was told yet
}

// halt is why nothing is presented to an environment.
type halt struct {
	outcome Outcome // ConfigError: to the end of the run; Deferred: until
	why     string
	until   time.Time
}

func (r *Rotator) newRun() *run {
	return &run{Rotator: r, keys: newKeyring(r.sealer), known: map[string]Application{}, faults: map[string]int{}, lost: map[string]int{}, stop: map[string]halt{}}
}

// handOn asks, once, for a sweep that goes on. A minute later, when this run has
// ended, and so that runs that never have time do not follow each other at once.
func (r *run) handOn(ctx context.Context) {
	r.handedOn.Do(func() { r.later(ctx, Request{Op: "sweep"}, time.Minute) })
}

// application reads the app credentials of an environment once per run; those
// who meet at the first time may each read them.
func (r *run) application(ctx context.Context, environment string) (Application, error) {
	r.appsMu.Lock()
	app, known := r.known[environment]
	r.appsMu.Unlock()
	if known {
		return app, nil
	}
	app, err := r.readApplication(ctx, environment)
	if err == nil {
		r.appsMu.Lock()
		defer r.appsMu.Unlock()
		r.known[environment] = app
	}
	return app, err
}

// credentialsChanged reads the app credentials again after they were refused
// and reports whether there are other ones to try now.
func (r *run) credentialsChanged(ctx context.Context, refused Application) bool {
	app, err := r.readApplication(ctx, refused.Environment)
	if err != nil || app == refused {
		return false
	}
	r.appsMu.Lock()
	defer r.appsMu.Unlock()
	r.known[refused.Environment] = app
	return true
}

// stopApp ends presenting to an environment for this run.
func (r *run) stopApp(environment, why string) {
	r.appsMu.Lock()
	defer r.appsMu.Unlock()
	r.stop[environment] = halt{outcome: ConfigError, why: why}
}

// pause ends presenting to an environment until then: its login host is down,
// or has asked for time. That is noticed by the first connection that meets it,
// once a run; other environments go on.
func (r *run) pause(ctx context.Context, environment string, wait time.Duration, why string) {
	until := r.clock().Add(wait)
	r.appsMu.Lock()
	was := r.stop[environment]
	if was.outcome == ConfigError || !until.After(was.until) {
		r.appsMu.Unlock()
		return
	}
	r.stop[environment] = halt{Deferred, why, until}
	r.appsMu.Unlock()
	if was.why == "" {
		r.log.WarnContext(ctx, "the login host of an environment has to be left alone; the others go on",
			"environment", environment, "until", until.UTC().Format(time.RFC3339), "why", why)
	}
}

// halted says why nothing may be presented to an environment now, if so.
func (r *run) halted(environment string) (halt, bool) {
	r.appsMu.Lock()
	defer r.appsMu.Unlock()
	h, halted := r.stop[environment]
	return h, halted && (h.outcome == ConfigError || r.clock().Before(h.until))
}

// answerLost counts lost answers of an environment: after three of them its login
// host is taken for down, for each more would leave one more token in doubt.
func (r *run) answerLost(environment string) (tooMany bool) {
	r.appsMu.Lock()
	defer r.appsMu.Unlock()
	r.lost[environment]++
	return r.lost[environment] >= 3
}

// requestFault counts connections of an environment whose request was called
// faulty: three of them are not the connections' fault.
func (r *run) requestFault(environment string) (tooMany bool) {
	r.appsMu.Lock()
	defer r.appsMu.Unlock()
	r.faults[environment]++
	return r.faults[environment] >= 3
}

// connection handles one connection. Whatever goes wrong with it, a panic
// included, stays with it.
func (r *run) connection(ctx context.Context, c token.Connection, s situation) (report ConnectionReport) {
	defer func() {
		if p := recover(); p != nil {
			r.log.ErrorContext(ctx, "panic", "connection", c.String(), "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			report = ConnectionReport{Connection: c, Outcome: Failed, Detail: "internal error; the log has more"}
		}
		r.log.InfoContext(ctx, "connection handled", "connection", c.String(), "outcome", report.Outcome,
			"epoch", report.Epoch, "generation", report.Generation, "detail", report.Detail)
	}()
	s.settings = r.settings
	t := &turn{run: r, conn: c, situation: s, restNow: map[rest]bool{}, bodies: map[ResponseKey]token.Secret{}}
	report = t.loop(ctx)
	if t.hasTurn {
		r.pace.giveBack(c.Environment)
	}
	if waits := report.Outcome == Deferred || report.Outcome == ConfigError || report.Outcome == Unknown; waits && !report.RetryAt.IsZero() {
		r.sweepBy(ctx, report.RetryAt)
	}
	if t.rec.Untold {
		r.noteUntold(t.rec)
	}
	return report
}

// turn is one connection's passage through the loop.
type turn struct {
	*run
	situation
	conn    token.Connection
	restNow map[rest]bool                // rows that failed in this turn
	bodies  map[ResponseKey]token.Secret // answers received or opened in this turn
	did     Outcome                      // Published or Recovered, once that is so
	detail  string                       // of the last failure
	refusal string                       // id of the attempt that the issuer refused in this turn
	hasTurn bool                         // to redeem, and did not yet
	drifted bool                         // people were told of a drift
	found   Record                       // the row as it was at first
}

type rest struct {
	step     Step
	response ResponseKey
}

// maxSteps bounds the loop; a turn that heals everything it can meet takes
// fewer than ten.
const maxSteps = 30

// loop loads, plans and acts until there is nothing to do.
func (t *turn) loop(ctx context.Context) ConnectionReport {
	for n := range maxSteps {
		if err := t.load(ctx); err != nil {
			return t.report(Failed, time.Time{}, err)
		}
		if n == 0 {
			t.found = t.rec
		}
		if t.rec.Revision == "" {
			return t.report(NotFound, time.Time{}, nil)
		}
		if t.rec.Stack != t.settings.Stack { // whose keys would not open what this installation seals
			return t.report(ConfigError, time.Time{}, &otherStackError{t.conn, t.settings.Stack, t.rec.Stack})
		}
		a := plan(t.situation)
		if a.outcome != "" {
			return t.end(ctx, a)
		}
		end, err := t.act(ctx, a)
		switch {
		case errors.Is(err, ErrConflict): // somebody else was faster: see what is left to do
		case err != nil:
			return t.report(Failed, time.Time{}, err)
		case end != nil:
			return *end
		}
	}
	return t.report(Failed, time.Time{}, errors.New("the row kept changing; the next run goes on"))
}

func (t *turn) load(ctx context.Context) (err error) {
	if t.rec, t.responses, err = t.loadRow(ctx, t.conn); err != nil {
		return err
	}
	t.now = t.clock()
	t.rests = func(step Step, response ResponseKey) bool {
		return t.restNow[rest{step, response}] || t.rec.resting(step, response, t.now)
	}
	return nil
}

// act takes one step. A report ends the turn; so does an error, except ErrConflict.
func (t *turn) act(ctx context.Context, a action) (*ConnectionReport, error) {
	switch a.step {
	case Decide:
		return t.decide(ctx, a.response)
	case Publish:
		return t.publish(ctx)
	case Look:
		return t.look(ctx)
	case Redeem:
		return t.redeem(ctx)
	case Revoke:
		return t.revoke(ctx, a.response)
	}
	return nil, fmt.Errorf("step %q of %s has no act", a.step, t.conn)
}

// end closes a turn that has nothing more to do. A due time that has passed
// is set anew, or the row would stay at the head of the queue.
func (t *turn) end(ctx context.Context, a action) ConnectionReport {
	if !t.rec.DueAt.IsZero() && !t.rec.DueAt.After(t.now) && a.outcome != Busy {
		if due := t.settings.dueAt(t.rec, t.responses, t.now); !due.Equal(t.rec.DueAt) {
			if err := t.write(ctx, Change{}); err != nil && !errors.Is(err, ErrConflict) {
				return t.report(Failed, time.Time{}, err)
			}
		}
	}
	if a.outcome == Fresh {
		a.outcome = t.achieved()
	}
	return t.report(a.outcome, a.retryAt, nil)
}

// achieved names what this turn did for a connection that is in order now.
func (t *turn) achieved() Outcome {
	switch {
	case t.did == Recovered:
		return Recovered
	case t.brought():
		return Rotated
	case t.did != "":
		return t.did
	}
	return Fresh
}

// write stores t.rec as it is now together with the change.
func (t *turn) write(ctx context.Context, change Change) error {
	return t.engine.write(ctx, t.rec, t.responses, change)
}

func (t *turn) report(outcome Outcome, retryAt time.Time, err error) ConnectionReport {
	r := ConnectionReport{Connection: t.conn, Outcome: outcome, Epoch: t.rec.Epoch, Generation: t.rec.Generation, RetryAt: retryAt, Detail: t.detail,
		Versions: len(t.recentPuts()), Unpublished: t.rec.unpublished() && outcome != Busy}
	if t.rec.Current != nil {
		r.ExpiresAt = t.rec.Current.ExpiresAt
	}
	if was := t.found.Current; outcome == Rotated && was != nil && !was.ExpiresAt.IsZero() && t.found.Epoch == t.rec.Epoch {
		r.Lapsed = max(0, t.rec.Current.SavedAt.Sub(was.ExpiresAt))
	}
	if r.Detail == "" && t.rec.Failure != nil && (outcome == Deferred || outcome == ConfigError) {
		r.Detail = t.rec.Failure.Detail
	}
	if err != nil {
		r.Detail = err.Error()
	}
	return r
}

// Classes of failures, as stored.
const (
	classConfig      = "config"
	classRateLimited = "rate_limited"
	classNotSent     = "not_sent"
	classStore       = "store"
	classIssuer      = "issuer"
	classBudget      = "budget"
)

// failure makes a row rest for a while, in this turn and in later ones, and
// ends the turn unless other rows go on. wait 0 means the usual back-off.
func (t *turn) failure(ctx context.Context, step Step, response ResponseKey, class string, wait time.Duration, cause error, history ...Event) (*ConnectionReport, error) {
	t.restNow[rest{step, response}] = true
	count := 1
	if f := t.rec.Failure; f != nil && f.Step == step && f.Class == class && f.Response == response {
		count = f.Count + 1
	}
	if wait <= 0 {
		wait = backOff(class, count)
	}
	was := t.rec.Failure
	f := Failure{Step: step, Class: class, Count: count, NextAt: t.clock().Add(wait).UTC(), Response: response, Detail: cause.Error()}
	if was == nil || !f.besides(t.rec) || was.besides(t.rec) || !was.NextAt.After(t.clock()) {
		t.rec.Failure = &f // else the loop as a whole is asked to wait, which one response must not undo
	}
	if class == classConfig && count == 1 {
		t.tellConfigError(ctx, cause)
	}
	err := t.write(ctx, Change{History: history})
	if errors.Is(err, ErrConflict) { // the row is another one now, and perhaps that is why the act failed
		delete(t.restNow, rest{step, response})
	}
	if err != nil {
		return nil, errors.Join(err, cause)
	}
	t.detail = cause.Error()
	return nil, nil // plan sees the resting row and says what it means
}

func backOff(class string, count int) time.Duration {
	first := 30 * time.Second
	if class == classConfig {
		first = time.Minute
	}
	return min(first<<min(count-1, 10), 15*time.Minute)
}

// open gives the body of a response's answer.
func (t *turn) open(ctx context.Context, m TokenResponse) (body token.Secret, err error) {
	if body, ok := t.bodies[m.Key]; ok {
		return body, nil
	}
	err = within(ctx, storeTimeout, func(ctx context.Context) error {
		body, err = t.keys.open(ctx, m.Sealed, m.Connection, m.Key)
		return err
	})
	if err == nil {
		t.bodies[m.Key] = body
	}
	return body, err
}
