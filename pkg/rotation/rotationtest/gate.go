package rotationtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Moment says on which side of a call's effect a gate stands.
type Moment string

const (
	Before  Moment = "before"  // nothing has happened yet
	Landing Moment = "landing" // a Slow or Late effect is about to happen; faults are not possible here
	After   Moment = "after"   // the effect has happened; the caller does not know it yet
)

// Passage is one arrival of a caller at a gate.
type Passage struct {
	Actor      string           // see WithActor; empty: the test itself
	Call       string           // port and method: "ledger.Write"
	Connection token.Connection // zero where the call has none
	When       Moment
}

func (p Passage) String() string {
	text := fmt.Sprintf("%s: %s %s", p.Actor, p.When, p.Call)
	if !p.Connection.IsZero() {
		text += " of " + p.Connection.String()
	}
	return text
}

// Gate decides what happens to a caller at a passage. The zero Fault lets it
// go on; so does a nil Gate.
type Gate func(ctx context.Context, at Passage) Fault

// Fault is what a gate does to a caller.
type Fault struct {
	Kind Kind
	For  time.Duration // of Freeze, Slow and Late
	// Left is for a Freeze, instead of For: the caller is frozen until its run has only
	// that much time left (see Within).
	Left time.Duration
}

func (f Fault) String() string {
	switch {
	case f.Left != 0:
		return fmt.Sprintf("%s until %v are left", f.Kind, f.Left)
	case f.For != 0:
		return fmt.Sprintf("%s for %v", f.Kind, f.For)
	}
	return string(f.Kind)
}

// possible reports whether the fault means anything to this caller: a run
// without an end has no time left to freeze until.
func (f Fault) possible(ctx context.Context) bool {
	left, bounded := processOf(ctx).left()
	return f.Left == 0 || bounded && left > f.Left
}

// freeze blocks the caller.
func (f Fault) freeze(ctx context.Context) {
	if f.Left == 0 {
		time.Sleep(f.For)
	} else if f.possible(ctx) {
		left, _ := processOf(ctx).left()
		time.Sleep(left - f.Left)
	}
}

// Kind names a fault. Before the effect, it replaces or delays the effect. After the
// effect, it changes only what the caller learns of it.
type Kind string

const (
	Continue Kind = ""
	Fail     Kind = "fail"     // an error. Before: no effect; After: done, but reported as failed
	Throttle Kind = "throttle" // Before: refused, because there were too many requests
	Deny     Kind = "deny"     // Before: refused, because a permission is missing
	Odd      Kind = "odd"      // Before: refused with something other than an OAuth error, as by a firewall
	Unsent   Kind = "unsent"   // Before: no connection; the caller knows that nothing was sent
	Crash    Kind = "crash"    // the calling goroutine ends here (runtime.Goexit)
	Freeze   Kind = "freeze"   // the caller is frozen, whatever its context says
	// Before: the effect takes that long; if the context ends first, the caller gets an error and the effect still happens
	Slow  Kind = "slow"
	Late  Kind = "late"  // Before: an error at once, and the effect still happens that much later
	Stale Kind = "stale" // Before: an eventually consistent read answers with the state before the last change
	Cut   Kind = "cut"   // After: only a part of the answer arrives; other than at the issuer the same as Fail
	// Before: the effect happens, and meanwhile the caller's process is asked to stop: its context ends, it goes on
	Cancel Kind = "cancel"
)

// InjectedError is what a caller gets from a fault.
type InjectedError struct {
	At   Passage
	Kind Kind
}

func (e *InjectedError) Error() string {
	return fmt.Sprintf("%s %s its effect: injected fault %s", e.At.Call, e.At.When, e.Kind)
}

// Is makes a call without an answer look like an ended context.
func (e *InjectedError) Is(target error) bool {
	return e.Kind == Slow && target == context.DeadlineExceeded || e.Kind == Cancel && target == context.Canceled
}

// Why the context of an actor has ended.
var (
	errCrashed   = errors.New("the actor has crashed")
	errCancelled = errors.New("the actor was asked to stop")
)

// Through passes one call through its two gates. The effect runs at most once and, if the
// fault delays it, on a goroutine of its own. stale asks it for an older state, which only
// reads have.
func Through[T any](ctx context.Context, g Gate, call string, c token.Connection,
	effect func(stale bool) (T, error)) (result T, err error) {

	var nothing T
	if err := ctx.Err(); err != nil {
		if errors.Is(context.Cause(ctx), errCrashed) {
			runtime.Goexit()
		}
		return nothing, err
	}
	at := Passage{Actor(ctx), call, c, Before}
	switch fault := g.ask(ctx, at); fault.Kind {
	case Continue:
		result, err = effect(false)
	case Stale:
		result, err = effect(true)
	case Freeze:
		fault.freeze(ctx)
		if err := ctx.Err(); err != nil {
			return nothing, err
		}
		result, err = effect(false)
	case Cancel: // by now the driver has ended the actor's context
		result, err = effect(false)
		if ctx.Err() != nil {
			return nothing, &InjectedError{at, Cancel}
		}
	case Slow:
		landed := land(ctx, g, at, fault.For, effect)
		select {
		case r := <-landed:
			result, err = r.value, r.err
		case <-ctx.Done():
			return nothing, &InjectedError{at, Slow}
		}
	case Late:
		land(ctx, g, at, fault.For, effect)
		return nothing, &InjectedError{at, Late}
	default:
		return nothing, &InjectedError{at, fault.Kind}
	}

	at.When = After
	switch fault := g.ask(ctx, at); fault.Kind {
	case Continue:
		return result, err
	case Freeze:
		fault.freeze(ctx)
		return result, err
	case Cut:
		return result, &InjectedError{at, Cut}
	default:
		return nothing, &InjectedError{at, fault.Kind}
	}
}

type outcome[T any] struct {
	value T
	err   error
}

// land runs effect after a while, even if its caller has ended.
func land[T any](ctx context.Context, g Gate, at Passage, after time.Duration,
	effect func(bool) (T, error)) <-chan outcome[T] {

	landed := make(chan outcome[T], 1)
	at.When = Landing
	go func() {
		time.Sleep(after)
		if g != nil {
			g(context.WithoutCancel(ctx), at)
		}
		value, err := effect(false)
		landed <- outcome[T]{value, err}
	}()
	return landed
}

// ask asks the gate about the passage. A crash ends the goroutine here.
func (g Gate) ask(ctx context.Context, at Passage) Fault {
	if g == nil {
		return Fault{}
	}
	fault := g(ctx, at)
	if fault.Kind == Crash {
		runtime.Goexit()
	}
	return fault
}

// injected returns the fault behind err, if there is one.
func injected(err error) (*InjectedError, bool) { return errors.AsType[*InjectedError](err) }

// Nth is a gate that works once: at the nth passage (from 1) of that call and moment.
func Nth(n int, call string, when Moment, fault Fault) Gate {
	var mu sync.Mutex
	seen := 0
	return func(_ context.Context, at Passage) Fault {
		if at.Call != call || at.When != when {
			return Fault{}
		}
		mu.Lock()
		defer mu.Unlock()
		if seen++; seen != n {
			return Fault{}
		}
		return fault
	}
}

// Always is a gate with the same fault for every passage of that call and moment, such as a
// service that is down.
func Always(call string, when Moment, fault Fault) Gate {
	return func(_ context.Context, at Passage) Fault {
		if at.Call != call || at.When != when {
			return Fault{}
		}
		return fault
	}
}

// Gates asks one gate after the other until one of them has a fault.
func Gates(gates ...Gate) Gate {
	return func(ctx context.Context, at Passage) Fault {
		for _, g := range gates {
			if fault := g(ctx, at); fault.Kind != Continue {
				return fault
			}
		}
		return Fault{}
	}
}
