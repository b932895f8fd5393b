package rotationtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"testing/synctest"
	"time"
)

// Driver lets one actor at a time go from gate to gate. It asks Choices which one, and with
// which fault. An actor is a process: once it has crashed, none of its goroutines passes a
// gate again. Driver.Gate is the gate of all fakes of a world.
//
// Everything is deterministic as long as no actor waits at two gates of the same call at
// once. Use it inside a synctest bubble.
type Driver struct {
	Choices     *Choices
	Menu        func(Passage) []Fault // what can go wrong at a passage; nil: nothing
	Script      Gate                  // faults that are not up for choice; nil: none
	Faults      int                   // how many of the menu's faults a run may still have
	Preemptions int                   // how often an actor that could go on may still have to let another go first
	InOrder     bool                  // no choice of the actor: the one that went last, or else the first by name
	MaxSteps    int                   // in one Run; 0: 10,000
	MaxTime     time.Duration         // without any step; 0: a day

	mu      sync.Mutex
	waiting []*waiter
	running map[string]int // goroutines started by Go
	cancel  map[string]context.CancelCauseFunc
	crashed map[string]bool
	arrived int
	last    string
	driving bool
	errs    []error
	bell    chan struct{}
}

type waiter struct {
	at       Passage
	ctx      context.Context
	arrival  int
	released chan Fault
}

// Go starts an actor. Its context is cancelled when it crashes. Call it before
// Run, between two of them, or from an actor, which then lets other processes begin.
func (d *Driver) Go(name string, act func(ctx context.Context)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.init()
	ctx, cancel := context.WithCancelCause(WithActor(context.Background(), name))
	d.running[name]++
	d.cancel[name] = cancel
	delete(d.crashed, name) // a new process under the old name
	go func() {
		defer d.ended(name, cancel)
		defer func() {
			if p := recover(); p != nil {
				d.failed(fmt.Errorf("%s panicked: %v\n%s", name, p, debug.Stack()))
			}
		}()
		act(ctx)
	}()
}

func (d *Driver) init() {
	if d.bell == nil {
		d.bell = make(chan struct{}, 1)
		d.running = map[string]int{}
		d.crashed = map[string]bool{}
		d.cancel = map[string]context.CancelCauseFunc{}
	}
}

func (d *Driver) ended(name string, cancel context.CancelCauseFunc) {
	cancel(nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running[name]--; d.running[name] == 0 {
		delete(d.running, name)
	}
	d.ring()
}

func (d *Driver) failed(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.errs = append(d.errs, err)
}

// ring wakes Run; the lock is held.
func (d *Driver) ring() {
	select {
	case d.bell <- struct{}{}:
	default:
	}
}

// Crashed reports whether the actor of that name has crashed. Ignore what it returned or
// logged after that.
func (d *Driver) Crashed(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.crashed[name]
}

// Gate blocks its caller until Run lets it go on. The test itself is no actor and passes
// freely. So does every caller while Run is not running.
func (d *Driver) Gate(ctx context.Context, at Passage) Fault {
	d.mu.Lock()
	d.init()
	switch {
	case at.When != Landing && d.crashed[at.Actor]:
		d.mu.Unlock()
		return Fault{Kind: Crash}
	case at.Actor == "", !d.driving && at.When == Landing:
		d.mu.Unlock()
		return Fault{}
	}
	d.arrived++
	w := &waiter{at, ctx, d.arrived, make(chan Fault, 1)}
	d.waiting = append(d.waiting, w)
	d.ring()
	d.mu.Unlock()
	return <-w.released
}

// Run drives all actors until each has returned or crashed. The error reports panics, and
// actors that hang or never end.
func (d *Driver) Run() error {
	d.mu.Lock()
	d.init()
	d.driving = true
	d.mu.Unlock()
	err := d.drive()
	if err != nil {
		d.crashAll()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.driving = false
	for _, w := range d.waiting { // late effects that nobody waits for
		w.released <- Fault{}
	}
	d.waiting = nil
	err = errors.Join(append(d.errs, err)...)
	d.errs = nil
	return err
}

func (d *Driver) drive() error {
	steps := cmp.Or(d.MaxSteps, 10_000)
	patience := cmp.Or(d.MaxTime, 24*time.Hour)
	for step := 0; ; {
		synctest.Wait()
		d.mu.Lock()
		w, busy := d.pick(), d.busy()
		d.mu.Unlock()
		switch {
		case w != nil:
			if step++; step > steps {
				w.released <- Fault{Kind: Crash}
				return fmt.Errorf("no end after %d passages, the last one %v", steps, w.at)
			}
			w.released <- d.decide(w)
		case !busy:
			return nil
		default: // all actors sleep: time passes until one of them does something
			timer := time.NewTimer(patience)
			select {
			case <-d.bell:
				timer.Stop()
			case <-timer.C:
				return fmt.Errorf("nothing has happened for %v", patience)
			}
		}
	}
}

func (d *Driver) busy() bool { return len(d.running) > 0 }

// pick removes and returns the waiter that goes next: a goroutine of a crashed actor, so
// that it ends; otherwise a choice, with the actor that went last as the first option.
func (d *Driver) pick() *waiter {
	if len(d.waiting) == 0 {
		return nil
	}
	slices.SortFunc(d.waiting, d.order)
	options := d.waiting
	isLast := options[0].rank(d) == 1
	if options[0].rank(d) == 0 || isLast && d.Preemptions == 0 || d.InOrder {
		options = options[:1]
	}
	w := Pick(d.Choices, "who goes on", options)
	if isLast && w != d.waiting[0] {
		d.Preemptions--
	}
	d.waiting = slices.DeleteFunc(slices.Clone(d.waiting), func(other *waiter) bool { return other == w })
	d.last = w.at.Actor
	return w
}

func (d *Driver) order(a, b *waiter) int {
	return cmp.Or(cmp.Compare(a.rank(d), b.rank(d)), cmp.Compare(a.at.Actor, b.at.Actor),
		cmp.Compare(a.at.String(), b.at.String()), cmp.Compare(a.arrival, b.arrival))
}

func (w *waiter) rank(d *Driver) int {
	switch {
	case w.at.When != Landing && d.crashed[w.at.Actor]:
		return 0
	case w.at.Actor == d.last:
		return 1
	}
	return 2
}

func (w *waiter) String() string { return w.at.String() }

// decide chooses the fault of a passage.
func (d *Driver) decide(w *waiter) Fault {
	if w.at.When == Landing {
		return Fault{}
	}
	if d.Crashed(w.at.Actor) {
		return Fault{Kind: Crash}
	}
	fault := Fault{}
	if d.Script != nil {
		fault = d.Script(w.ctx, w.at)
	}
	if fault.Kind == Continue && d.Menu != nil && d.Faults > 0 {
		options := []Fault{{}}
		for _, f := range d.Menu(w.at) {
			if f.possible(w.ctx) {
				options = append(options, f)
			}
		}
		fault = Pick(d.Choices, w.at, options)
		if fault.Kind != Continue {
			d.Faults--
		}
	}
	if left, bounded := processOf(w.ctx).left(); bounded && left <= 0 {
		fault = Fault{Kind: Crash} // a function is ended at its deadline, whatever it does
	}
	switch fault.Kind {
	case Crash:
		d.crash(w.at.Actor)
	case Cancel:
		d.end(w.at.Actor, errCancelled)
	}
	return fault
}

func (d *Driver) crash(name string) {
	d.mu.Lock()
	if d.cancel[name] != nil {
		d.crashed[name] = true
	}
	d.mu.Unlock()
	d.end(name, errCrashed)
}

// end ends the context of an actor.
func (d *Driver) end(name string, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if cancel := d.cancel[name]; cancel != nil {
		cancel(why)
	}
}

// crashAll ends a run that went wrong, so that its bubble can end.
func (d *Driver) crashAll() {
	d.mu.Lock()
	names := slices.Collect(maps.Keys(d.cancel))
	d.mu.Unlock()
	for _, name := range names {
		d.crash(name)
	}
	for {
		synctest.Wait()
		d.mu.Lock()
		waiting := d.waiting
		d.waiting = nil
		d.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		for _, w := range waiting {
			w.released <- Fault{Kind: Crash}
		}
	}
}
