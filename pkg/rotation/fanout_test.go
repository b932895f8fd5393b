package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// A thousand connections are due at once and runs have three minutes, at two
// redeems a second. A queue hands on the others; it delivers everything twice and late,
// to three runs at once. No token is presented twice, those that expired first come
// first, and all runs together keep to one rate.
func TestWhatOneRunCannotDoIsHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const connections, together = 1000, 3
		b := newHarness(rotationtest.Personality{})
		places := b.backlog(t, connections)
		past, began := len(b.Journal.Entries()), time.Now()
		runs := b.workOff(t, together, 3*time.Minute)

		inFlight := together * b.settings.Concurrency
		var at []time.Time
		for _, e := range b.Journal.Entries()[past:] {
			p, ok := e.Effect.(rotationtest.Presented)
			if !ok {
				continue
			}
			place, known := places[p.What]
			delete(places, p.What)
			if !known {
				t.Errorf("presentation %d is of a token that was presented before", p.N)
			} else if late := len(at) - place; late < -inFlight || late > inFlight {
				t.Errorf("the token that ran out as number %d is presented as number %d", place, len(at))
			}
			at = append(at, e.At)
		}
		if len(places) != 0 {
			t.Errorf("%d of %d tokens were not presented", len(places), connections)
		}
		const window = 100
		for i := range max(0, len(at)-window) {
			// At its start up to ten may be saved up, and what is in flight bunch together.
			if took := at[i+window].Sub(at[i]); took < time.Duration(window-10-inFlight)*time.Second/2 {
				t.Errorf("%d redeems within %v, at two a second", window, took)
			}
		}
		if took := at[len(at)-1].Sub(began); took > 12*time.Minute {
			t.Errorf("%d rotations at two a second took %v", len(at), took)
		}
		if runs < 5 {
			t.Errorf("%d runs: nothing was handed on", runs)
		}
		t.Logf("%d rotations in %d runs and %v", len(at), runs, at[len(at)-1].Sub(began))
	})
}

// Without the queue, the other connections wait for the schedule, and nothing else changes.
// Without the shared rate limiter, each run keeps to the rate by itself.
func TestConnectionsWithoutTimeAreLeftToTheNextSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.backlog(t, 100)
		limiter := &rotationtest.RateLimiter{Gate: rotationtest.Always("ratelimiter.Reserve", rotationtest.Before,
			rotationtest.Fault{Kind: rotationtest.Fail})}
		var loads atomic.Int32
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.Call == "ledger.Load" && at.When == rotationtest.Before {
				loads.Add(1)
			}
			return rotationtest.Fault{}
		})
		first := b.runFor(t, 45*time.Second, limiter, rotation.Request{Op: "sweep"})
		if done := first.Outcomes[rotation.Rotated]; done < 20 || done > 40 || first.Due != 100 || first.HandedOn == 0 {
			t.Errorf("a run of 45 s reports %v of %d, %d handed on", first.Outcomes, first.Due, first.HandedOn)
		}
		if handled := len(first.Connections); int(loads.Load()) > 8*handled {
			t.Errorf("%d loads for %d connections: the ones that were handed on were looked at", loads.Load(), handled)
		}
		second := b.runFor(t, 15*time.Minute, limiter, rotation.Request{Op: "sweep"})
		if left := 100 - first.Outcomes[rotation.Rotated]; second.Outcomes[rotation.Rotated] != left || second.HandedOn != 0 {
			t.Errorf("the next run reports %v, want the %d that were left", second.Outcomes, left)
		}
	})
}

// backlog connects so many, a minute apart, and lets all their tokens run out.
// It returns each refresh token's place in the order in which that happens.
func (b *harness) backlog(t *testing.T, n int) map[token.Fingerprint]int {
	t.Helper()
	places := map[token.Fingerprint]int{}
	for i := range n {
		c := token.Connection{Environment: "sandbox", Name: fmt.Sprintf("c%d", (i*7919)%n)} // by name in another order
		rec, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, c)
		must(t, err)
		exchange, err := b.consents().Prepare(t.Context(), c, rec.Epoch)
		must(t, err)
		_, err = exchange.Redeem(t.Context(), rotation.Consent{Code: b.Issuer.Authorize(pat, redirectURI, ""),
			RedirectURI: redirectURI})
		must(t, err)
		_, err = b.rotator().Publish(t.Context(), c)
		must(t, err)
		rec, _, err = b.Ledger.Load(t.Context(), c)
		must(t, err)
		places[rec.Current.Fingerprint] = i
		time.Sleep(time.Minute)
	}
	time.Sleep(2 * time.Hour)
	b.FollowUps.Take()
	return places
}

// workOff sweeps, and delivers what that queues as SQS may: every message
// twice, the copy up to five minutes late, so many at once, each to a process
// of its own. It returns how many runs there were.
func (b *harness) workOff(t *testing.T, together int, timeout time.Duration) (runs int) {
	t.Helper()
	limiter, random := &rotationtest.RateLimiter{}, rand.New(rand.NewPCG(1, 2))
	slots := make(chan struct{}, together)
	var group sync.WaitGroup
	deliver := func(request rotation.Request, after time.Duration) {
		runs++
		group.Go(func() {
			time.Sleep(after)
			slots <- struct{}{}
			defer func() { <-slots }()
			b.runFor(t, timeout, limiter, request)
		})
	}
	deliver(rotation.Request{Op: "sweep"}, 0)
	for {
		time.Sleep(time.Second)
		due, err := b.Ledger.Due(t.Context(), time.Now())
		must(t, err)
		if len(due) == 0 {
			group.Wait()
			return runs
		}
		for _, request := range b.FollowUps.Take() {
			deliver(request, 0)
			deliver(request, time.Duration(random.Int64N(int64(5*time.Minute))))
		}
	}
}

// runFor carries out a request in a process of its own that has so much time.
func (b *harness) runFor(t *testing.T, timeout time.Duration, limiter rotation.RateLimiter,
	request rotation.Request) rotation.Report {
	r, err := rotation.NewRotator(rotation.Config{Ledger: b.Ledger, SecretStore: b.SecretStore, Sealer: b.Sealer,
		Applications: b.Applications,
		Issuer:       b.Issuer, FollowUps: b.FollowUps, RateLimiter: limiter, Log: b.logger(), Settings: b.settings})
	if err != nil {
		t.Error(err)
		return rotation.Report{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	report, err := r.Do(ctx, request)
	if err != nil || len(report.Connections)+report.HandedOn != report.Due {
		t.Errorf("a run reports %d connections and %d handed on of %d due: %v", len(report.Connections), report.HandedOn,
			report.Due, err)
	}
	return report
}

// What keeps failing is tried less and less often.
func TestAFaultThatLastsIsMetLessAndLess(t *testing.T) {
	for _, call := range []string{"secrets.Current", "sealer.DataKey", "applications.Application"} {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			b.connect(t)
			time.Sleep(time.Hour)
			met := 0
			b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
				if at.Call != call || at.When != before {
					return rotationtest.Fault{}
				}
				met++
				return fail
			})
			b.sweep(t)
			for start := time.Now(); time.Since(start) < 3*time.Hour; time.Sleep(10 * time.Second) {
				b.deliver(t.Context())
			}
			if met < 5 || met > 20 {
				t.Errorf("%s is met %d times in three hours", call, met)
			}
		})
	}
}

// A connection that waits without a slot when the run's time ends does not take the slot
// of the sweep, which is about to hand on what is left.
func TestASweepEndsAlthoughAConnectionWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.settings.Concurrency = 1
		b.backlog(t, 3)
		presented := 0
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			switch {
			case at.Call == "secrets.Put" && at.When == before: // the first one waits, and tries again
				return fail
			case at.Call == "issuer.Redeem" && at.When == before:
				if presented++; presented == 2 { // the second one uses the time
					return rotationtest.Fault{Kind: rotationtest.Slow, For: 19 * time.Second}
				}
			case at.Call == "followups.Send" && at.When == before && presented == 2: // the run ends in the meantime
				return rotationtest.Fault{Kind: rotationtest.Freeze, For: time.Minute}
			}
			return rotationtest.Fault{}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		defer cancel()
		report, err := b.rotator().Sweep(ctx)
		if !errors.Is(err, rotation.ErrNotHandedOn) || report.HandedOn != 1 || presented != 2 {
			t.Errorf("%d handed on after %d presentations, want one after two (%v)", report.HandedOn, presented, err)
		}
	})
}
