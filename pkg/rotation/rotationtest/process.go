package rotationtest

import (
	"context"
	"time"
)

// process is what the fakes know about the process that calls them. It is in the context, so
// it is also there if the engine detaches a call from its caller.
type process struct {
	name      string
	scheduled bool
	run       *Run // nil: no time limit
	skew      time.Duration
}

// Run is one run of a function. The function ends it at Ends.
type Run struct{ Ends time.Time }

type processKey struct{}

// left is how much time the run has. ok is false if it has no time limit.
func (p process) left() (left time.Duration, ok bool) {
	if p.run == nil {
		return 0, false
	}
	return time.Until(p.run.Ends), true
}

func processOf(ctx context.Context) process {
	p, _ := ctx.Value(processKey{}).(process)
	return p
}

func withProcess(ctx context.Context, change func(*process)) context.Context {
	p := processOf(ctx)
	change(&p)
	return context.WithValue(ctx, processKey{}, p)
}

// WithActor names the actor that makes the calls under the returned context.
func WithActor(ctx context.Context, name string) context.Context {
	return withProcess(ctx, func(p *process) { p.name = name })
}

// Actor returns the name given by WithActor.
func Actor(ctx context.Context) string { return processOf(ctx).name }

// Scheduled marks the calls of a run that no person requested, but the schedule or the queue.
// Some actions are allowed only if a person requests them.
func Scheduled(ctx context.Context) context.Context {
	return withProcess(ctx, func(p *process) { p.scheduled = true })
}

// Within limits the time of a run. After it, a Driver ends the process, as AWS Lambda does.
// The run knows its deadline.
func Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	ends, _ := ctx.Deadline()
	return withProcess(ctx, func(p *process) { p.run = &Run{ends} }), cancel
}

// OffBy marks the calls of a process with a clock that is ahead, or behind if skew is
// negative. Check then compares times by that clock.
func OffBy(ctx context.Context, skew time.Duration) context.Context {
	return withProcess(ctx, func(p *process) { p.skew = skew })
}
