package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/console"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// experiment is a fault that a person can cause in the demo, and what is seen of tokenturn
// after it.
type experiment struct {
	name, title, promise string
	steps                []step
	limit                time.Duration // longest time; 0: usualLimit
	consent              bool          // the connection needs a person's consent in it

	// Guarded by lab.mu.
	state string
	done  []time.Time // of the steps that were observed
	why   string      // failed
}

// step is one thing that happens. do causes it where it needs a cause, and returns once
// it was observed.
type step struct {
	text string
	do   func(ctx context.Context, t *trial) error
}

const (
	// usualLimit ends an experiment that does not go as promised.
	usualLimit = 2 * time.Minute
	// personLimit is for those in which a person has to act.
	personLimit = 15 * time.Minute
)

// lab runs experiments, one at a time, and restores normal conditions after each.
type lab struct {
	conn    token.Connection
	in      *installation
	standIn *procoretest.Server
	log     *slog.Logger
	faults  *faults
	all     []*experiment

	mu       sync.Mutex // guards all below, and the state of experiments
	running  *experiment
	changed  chan struct{} // closed at the next change that is shown
	lastWait string        // why none can start, as it was shown last
	differs  bool          // somebody was shown something else
	event    chan struct{} // closed at the next report or notice
	reports  []rotation.ConnectionReport
	notices  []rotation.Notice
	closing  bool
	cancel   context.CancelFunc // of the running experiment
	ended    sync.WaitGroup
}

var _ console.Experiments = (*lab)(nil)

func newLab(conn token.Connection, in *installation, f *faults) *lab {
	return &lab{conn: conn, in: in, standIn: f.standIn, log: in.log, faults: f, all: f.experiments(),
		changed: make(chan struct{}), event: make(chan struct{})}
}

// Experiments implements console.Experiments.
func (l *lab) Experiments() []console.Experiment {
	wait := l.wait(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.differs = l.differs || wait != l.lastWait
	l.lastWait = wait
	var list []console.Experiment
	for _, e := range l.all {
		s := console.Experiment{Name: e.name, Title: e.title, Promise: e.promise, State: e.state, Why: e.why}
		switch {
		case l.running == e:
			s.Wait = "It is running."
		case l.running != nil:
			s.Wait = fmt.Sprintf("“%s” is running.", l.running.title)
		default:
			s.Wait = wait
		}
		for i, step := range e.steps {
			one := console.Step{Text: step.text}
			if i < len(e.done) {
				one.Done, one.At = true, e.done[i]
			}
			s.Steps = append(s.Steps, one)
		}
		list = append(list, s)
	}
	return list
}

// wait says why no experiment can start now; empty if one can.
func (l *lab) wait(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	rec, _, err := l.in.ledger.Load(ctx, l.conn)
	switch {
	case err != nil:
		return "The ledger cannot be read: " + err.Error()
	case rec.Status == rotation.NeedsConsent:
		return fmt.Sprintf("%s needs a new consent first: create a consent link and open it.", l.conn)
	case rec.Status != rotation.Active:
		return fmt.Sprintf("Connect %s first: open its consent link.", l.conn)
	case rec.Attempt != nil || !shown(rec) || len(rec.Failures) > 0:
		return fmt.Sprintf("tokenturn is at work on %s.", l.conn)
	}
	return ""
}

// shown reports whether readers get the current pair.
func shown(rec rotation.Record) bool {
	return rec.Current != nil && rec.Current.VersionID != "" && rec.Published == rec.Current.VersionID
}

// Changed implements console.Experiments.
func (l *lab) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// change calls do under the lock and reports a change.
func (l *lab) change(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
	close(l.changed)
	l.changed = make(chan struct{})
}

// report takes every report of the engine. After it, other experiments may be possible than
// before.
func (l *lab) report(r rotation.Report) {
	l.happened(func() {
		if l.running != nil {
			l.reports = append(l.reports, r.Connections...)
		}
	})
	if wait := l.wait(context.Background()); l.outdated(wait) {
		l.change(func() {})
	}
}

// outdated reports whether somebody was shown another reason than wait.
func (l *lab) outdated(wait string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.differs || wait != l.lastWait
	l.differs = false
	return was
}

// notify takes every notice of the engine.
func (l *lab) notify(n rotation.Notice) {
	l.happened(func() {
		if l.running != nil {
			l.notices = append(l.notices, n)
		}
	})
}

// happened calls do under the lock and wakes the running experiment.
func (l *lab) happened(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
	close(l.event)
	l.event = make(chan struct{})
}

func (l *lab) nextEvent() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.event
}

// Start implements console.Experiments.
func (l *lab) Start(ctx context.Context, name string) error {
	i := slices.IndexFunc(l.all, func(e *experiment) bool { return e.name == name })
	if i < 0 {
		return fmt.Errorf("there is no experiment %q", name)
	}
	e := l.all[i]
	if wait := l.wait(ctx); wait != "" {
		return errors.New(wait)
	}
	rec, _, err := l.in.ledger.Load(ctx, l.conn)
	if err != nil {
		return err
	}
	limit := e.limit
	if limit == 0 {
		limit = usualLimit
	}
	working, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	started := false
	l.change(func() {
		if l.running != nil || l.closing {
			return
		}
		started = true
		l.running, l.cancel, l.reports, l.notices = e, cancel, nil, nil
		e.state, e.done, e.why = console.Running, nil, ""
		l.ended.Add(1)
	})
	if !started {
		cancel()
		return errors.New("another experiment is running")
	}
	t := &trial{lab: l, before: rec, presented: len(l.standIn.Presentations()), consent: e.consent}
	go func() {
		defer l.ended.Done()
		defer cancel() // not l.cancel, which may already be that of the next experiment
		l.run(working, e, t)
	}()
	return nil
}

// run takes the steps of an experiment.
func (l *lab) run(ctx context.Context, e *experiment, t *trial) {
	l.log.Info("experiment begins: " + e.title)
	var err error
	for _, step := range e.steps {
		if err = step.do(ctx, t); err != nil {
			err = fmt.Errorf("not observed: %s: %w", strings.TrimSuffix(step.text, "."), err)
			break
		}
		l.change(func() { e.done = append(e.done, time.Now()) })
	}
	// Normal conditions come back even if the program ends now.
	restoring, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if restored := l.faults.restore(restoring); restored != nil {
		err = errors.Join(err, fmt.Errorf("restoring normal conditions: %w", restored))
	}
	if err != nil {
		l.log.Warn("experiment failed: "+e.title, "error", err)
	} else {
		l.log.Info("experiment ended as promised: " + e.title)
	}
	l.change(func() {
		l.running, e.state = nil, console.Done
		if err != nil {
			e.state, e.why = console.Failed, err.Error()
		}
	})
}

func (l *lab) cancelRunning() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
}

// close ends the running experiment and waits until normal conditions are restored.
func (l *lab) close() {
	l.change(func() { l.closing = true })
	l.cancelRunning()
	l.ended.Wait()
}

// trial is one run of an experiment, with what was there before it.
type trial struct {
	*lab
	before    rotation.Record
	presented int  // presentations before it
	consent   bool // see experiment
}

var (
	errTooLong = errors.New("it took too long")
	errStopped = errors.New("the demo was stopped")
)

// lookAgain is the time between two reads of the stores, which do not report changes.
const lookAgain = 50 * time.Millisecond

// until returns once the fact is there. A connection that needs a consent for which the
// experiment is not made is an error.
func (t *trial) until(ctx context.Context, fact func() bool) error {
	for {
		presented, event := t.standIn.Changed(), t.nextEvent()
		if fact() {
			return nil
		}
		if rec := t.record(ctx); !t.consent && rec.Status == rotation.NeedsConsent {
			return fmt.Errorf("%s needs a new consent", t.conn)
		}
		select {
		case <-presented:
		case <-event:
		case <-time.After(lookAgain):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return errStopped
			}
			return errTooLong
		}
	}
}

// rotate asks for a forced rotation, as a person does.
func (t *trial) rotate(ctx context.Context) error {
	return t.faults.followUps.Send(ctx, rotation.Request{Op: "rotate", Connection: t.conn.String()}, 0)
}

// rotateAndSee is rotate, then until.
func (t *trial) rotateAndSee(ctx context.Context, fact func() bool) error {
	if err := t.rotate(ctx); err != nil {
		return err
	}
	return t.until(ctx, fact)
}

// rotateUntil asks for forced rotations until the fact is there: the first one after
// patience, and each as soon as the protocol allows it.
func (t *trial) rotateUntil(ctx context.Context, patience time.Duration, fact func() bool) error {
	begin := time.Now().Add(patience)
	for {
		earliest := t.mayPresent(t.record(ctx))
		if earliest.Before(begin) {
			earliest = begin
		}
		seen := false
		err := t.until(ctx, func() bool {
			seen = fact()
			return seen || !time.Now().Before(earliest)
		})
		if err != nil || seen {
			return err
		}
		reports := t.reportCount()
		if err := t.rotate(ctx); err != nil {
			return err
		}
		giveUp := time.Now().Add(2 * t.in.settings.RedeemTimeout) // a run that crashed makes no report
		err = t.until(ctx, func() bool {
			seen = fact()
			return seen || t.reportCount() > reports || time.Now().After(giveUp)
		})
		if err != nil || seen {
			return err
		}
		// The run may have reported before its last write was visible here.
		settled := time.Now().Add(4 * lookAgain)
		err = t.until(ctx, func() bool {
			seen = fact()
			return seen || time.Now().After(settled)
		})
		if err != nil || seen {
			return err
		}
	}
}

// look leaves things as they are, so that a person can look at them.
func (t *trial) look(ctx context.Context) error {
	over := time.Now().Add(t.faults.timing.look)
	return t.until(ctx, func() bool { return !time.Now().Before(over) })
}

// mayPresent is the time before which nothing is presented.
func (t *trial) mayPresent(rec rotation.Record) (at time.Time) {
	if rec.Attempt != nil {
		at = rec.Attempt.Until.Add(t.in.settings.Quiet)
	}
	for _, f := range rec.Failures {
		if f.Class == "rate_limited" && f.NextAt.After(at) {
			at = f.NextAt
		}
	}
	return at
}

func (t *trial) reportCount() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.reports)
}

// The facts below are functions for until.

// reported: a run of this experiment had the outcome.
func (t *trial) reported(outcome rotation.Outcome) func() bool {
	return func() bool { return t.reportsWith(outcome) > 0 }
}

func (t *trial) reportsWith(outcome rotation.Outcome) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.reports {
		if r.Connection == t.conn && r.Outcome == outcome {
			n++
		}
	}
	return n
}

// noticed: there was a notice of the kind.
func (t *trial) noticed(kind string) func() bool {
	return func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return slices.ContainsFunc(t.notices, func(n rotation.Notice) bool { return n.Kind == kind })
	}
}

// record is the row as it is now; if it cannot be read at the moment, as it was before.
func (t *trial) record(ctx context.Context) rotation.Record {
	rec, _, err := t.in.ledger.Load(ctx, t.conn)
	if err != nil || rec.Current == nil {
		return t.before
	}
	return rec
}

// document is what readers get now.
func (t *trial) document(ctx context.Context) (doc token.Document, ok bool) {
	v, err := t.in.secrets.Current(ctx, t.conn)
	if err != nil {
		return doc, false
	}
	doc, err = token.ParseDocument(v.Value)
	return doc, err == nil
}

// presentations are those of refresh tokens since the experiment began.
func (t *trial) presentations() []procoretest.Presentation {
	return slices.DeleteFunc(t.standIn.Presentations()[t.presented:], func(p procoretest.Presentation) bool {
		return p.Grant != "refresh_token"
	})
}

// presentedWith: the first refresh token of this experiment was presented so many times or
// more, the last time with the outcome.
func (t *trial) presentedWith(times int, outcome string) func() bool {
	return func() bool {
		n, last := 0, ""
		all := t.presentations()
		for _, p := range all {
			if p.Fingerprint == all[0].Fingerprint {
				n, last = n+1, p.Outcome
			}
		}
		return n >= times && last == outcome
	}
}

// presentedOnce: no refresh token was presented twice in this experiment.
func (t *trial) presentedOnce() bool {
	seen := map[token.Fingerprint]bool{}
	for _, p := range t.presentations() {
		if seen[p.Fingerprint] {
			return false
		}
		seen[p.Fingerprint] = true
	}
	return true
}

// publishes: programs get a pair that is newer than the one before this experiment, and
// the server accepts its access token.
func (t *trial) publishes(ctx context.Context) func() bool {
	return func() bool {
		rec := t.record(ctx)
		newer := rec.Epoch > t.before.Epoch || rec.Epoch == t.before.Epoch && rec.Generation > t.before.Generation
		doc, ok := t.document(ctx)
		return ok && newer && shown(rec) && rec.Attempt == nil && doc.Epoch == rec.Epoch &&
			doc.Generation == rec.Generation && t.standIn.Accepts(doc.AccessToken)
	}
}
