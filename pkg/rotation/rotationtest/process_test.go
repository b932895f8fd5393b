package rotationtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// A caller that is canceled while a call is on its way: the effect happens. The caller
// learns of it only if the call does not use the context of the caller.
func TestCancel(t *testing.T) {
	for _, detached := range []bool{true, false} {
		t.Run(fmt.Sprint("detached ", detached), func(t *testing.T) {
			Replay(t, func(c *Choices) error {
				d := &Driver{Choices: c, Script: Nth(1, "ledger.SaveResponse", Before, Fault{Kind: Cancel})}
				l := &Ledger{Gate: d.Gate, Journal: &Journal{}}
				var first, second error
				d.Go("writer", func(ctx context.Context) {
					call := ctx
					if detached {
						call = context.WithoutCancel(ctx)
					}
					first = l.SaveResponse(call, response(1, 0, "a"))
					_, _, second = l.Load(ctx, acme)
				})
				if err := d.Run(); err != nil {
					return err
				}
				_, responses, _ := l.Load(context.Background(), acme)
				if len(responses) != 1 || errors.Is(first, context.Canceled) == detached || !errors.Is(second, context.Canceled) ||
					d.Crashed("writer") {
					return fmt.Errorf("%d responses, errors %v and %v, crashed %t", len(responses), first, second, d.Crashed("writer"))
				}
				return nil
			})
		})
	}
}

// A run is ended at its deadline, and can be made to stand still until shortly before.
func TestARunEndsAtItsDeadline(t *testing.T) {
	for _, test := range []struct {
		fault Fault
		saved bool
		at    time.Duration
	}{
		{Fault{Kind: Freeze, Left: 10 * time.Second}, true, 50 * time.Second},
		{Fault{Kind: Freeze, Left: 2 * time.Minute}, true, 0}, // more than there is
		{Fault{Kind: Freeze, For: time.Minute}, false, 0},
	} {
		t.Run(test.fault.String(), func(t *testing.T) {
			Replay(t, func(c *Choices) error {
				d := &Driver{Choices: c, Script: Nth(1, "ledger.Load", After, test.fault)}
				l := &Ledger{Gate: d.Gate, Journal: &Journal{}}
				start := time.Now()
				d.Go("run", func(ctx context.Context) {
					ctx, cancel := Within(ctx, time.Minute)
					defer cancel()
					_, _, _ = l.Load(ctx, acme)
					_ = l.SaveResponse(context.WithoutCancel(ctx), response(1, 0, "a"))
				})
				if err := d.Run(); err != nil {
					return err
				}
				entries := l.Journal.Entries()
				if len(entries) > 0 != test.saved || d.Crashed("run") == test.saved || test.saved &&
					entries[0].At.Sub(start) != test.at {
					return fmt.Errorf("%d responses saved, crashed %t, after %v", len(entries), d.Crashed("run"), time.Since(start))
				}
				return nil
			})
		})
	}
}

// Processes may begin while others run.
func TestActorsLetOthersBegin(t *testing.T) {
	Replay(t, func(c *Choices) error {
		d := &Driver{Choices: c}
		l := &Ledger{Gate: d.Gate, Journal: &Journal{}}
		d.Go("schedule", func(ctx context.Context) {
			for n := range 3 {
				time.Sleep(time.Hour)
				d.Go(fmt.Sprint("run ", n), func(ctx context.Context) { _ = l.SaveResponse(ctx, response(1, int64(n), "a")) })
			}
		})
		if err := d.Run(); err != nil {
			return err
		}
		var by []string
		for _, e := range l.Journal.Entries() {
			by = append(by, e.Actor)
		}
		if want := []string{"run 0", "run 1", "run 2"}; !slices.Equal(by, want) {
			return fmt.Errorf("%v, want %v", by, want)
		}
		return nil
	})
}
