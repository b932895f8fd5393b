package rotationtest

import (
	"context"
	"time"
)

// process is what the fakes know of the process that calls them. It travels in
// the context, and so also where the engine detaches a call from its caller.
type process struct {
	name      string
	scheduled bool
	run       *Run // nil: it may take as long as it likes
	skew      time.Duration
}

// Run is one run of a function, which ends it at that time.
type Run struct{ Ends time.Time }

type processKey struct{}

// left is how much time the run has; ok is false where it has no end.
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

// WithActor names who makes the calls under the returned context.
func WithActor(ctx context.Context, name string) context.Context {
	return withProcess(ctx, func(p *process) { p.name = name })
}

// Actor returns the name given by WithActor.
func Actor(ctx context.Context) string { return processOf(ctx).name }

// Scheduled marks the calls of a run that no person has asked for: the
// schedule's or the queue's. Some things only a person's word allows.
func Scheduled(ctx context.Context) context.Context {
	return withProcess(ctx, func(p *process) { p.scheduled = true })
}

// Within gives a run so much time, after which a Driver ends its process, as
// AWS Lambda does. The run knows its deadline.
func Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	ends, _ := ctx.Deadline()
	return withProcess(ctx, func(p *process) { p.run = &Run{ends} }), cancel
}

// OffBy marks the calls of a process whose clock is ahead by so much, or behind.
// What Check says of times is then meant by that clock.
func OffBy(ctx context.Context, skew time.Duration) context.Context {
	return withProcess(ctx, func(p *process) { p.skew = skew })
}
