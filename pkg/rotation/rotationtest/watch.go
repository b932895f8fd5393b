package rotationtest

import (
	"context"
	"fmt"
	"strings"
)

// Effects of the test itself. A trace shows them among the others.
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

// Watch is a gate that asks g and records in the journal what g does to a caller. So Check can
// distinguish a process that died from one that forgot something, and knows which notices a
// fault blocked. It also records each call of an actor without a deadline.
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

// needsDeadline: a notifier bounds its own calls, and actions of a person take no time.
func needsDeadline(call string) bool {
	return !strings.HasPrefix(call, "notifier.") && !strings.HasPrefix(call, "hand.")
}
