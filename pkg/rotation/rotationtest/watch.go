package rotationtest

import (
	"context"
	"fmt"
	"strings"
)

// The effects of the test itself, which a trace shows among the others.
type (
	// Faulted is what a gate did to a caller.
	Faulted struct {
		At    Passage
		Fault Fault
	}
	// Unbounded is a call that was made without a deadline.
	Unbounded struct{ At Passage }
)

func (e Faulted) String() string {
	return fmt.Sprintf("fault %s %s: %s", e.At.When, e.At.Call, e.Fault)
}

func (e Unbounded) String() string { return "no deadline at " + e.At.Call }

// Watch is a gate that asks g and writes into the journal what g does to a
// caller, so that Check can tell a process that died from one that forgot
// something, and what people were not told because the way to them was cut. It
// also notes each call of an actor that may take as long as it likes.
func Watch(j *Journal, g Gate) Gate {
	return func(ctx context.Context, at Passage) Fault {
		if _, bounded := ctx.Deadline(); !bounded && at.When == Before && at.Actor != "" && needsDeadline(at.Call) {
			j.Add(ctx, at.Connection, Unbounded{at})
		}
		fault := Fault{}
		if g != nil {
			fault = g(ctx, at)
		}
		if fault.Kind != Continue {
			j.Add(ctx, at.Connection, Faulted{at, fault})
		}
		return fault
	}
}

// needsDeadline: a notifier bounds itself, and what a person does by hand takes
// no time.
func needsDeadline(call string) bool {
	return !strings.HasPrefix(call, "notifier.") && !strings.HasPrefix(call, "hand.")
}
