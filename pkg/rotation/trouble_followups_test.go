package rotation_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// threeLifetimes are the lives of access tokens that Procore has, had and announced.
var threeLifetimes = []time.Duration{900 * time.Second, 5400 * time.Second, 7200 * time.Second}

// One failing call costs readers at most three minutes of a live token,
// whichever call it is and however short tokens live: no failure waits for the
// next scheduled sweep.
func TestOneFailureCostsReadersMinutesAtMost(t *testing.T) {
	calls := []string{"ledger.Due", "ledger.Load", "ledger.Write", "ledger.SaveResponse", "followups.Send",
		"secrets.Current", "secrets.Put", "secrets.Promote", "sealer.DataKey", "sealer.Unwrap",
		"applications.Application", "issuer.Redeem"}
	for _, lifetime := range threeLifetimes {
		for _, call := range calls {
			for nth := range 5 {
				if nth == 0 && call == "issuer.Redeem" {
					continue // a login host that is down for a minute leaves ends unknown, which take a quiet period
				}
				name := fmt.Sprintf("%v, %s fails at its passage %d", lifetime, call, nth)
				if nth == 0 {
					name = fmt.Sprintf("%v, %s fails for a minute", lifetime, call)
				}
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := newHarness(rotationtest.Personality{Lifetime: lifetime})
						b.connect(t)
						connected := time.Now()
						b.operation(t).run(b.nextRotation(t))
						if gone := b.dead(t, acme, connected); gone != 0 {
							t.Fatalf("before any failure readers had no live token for %v", gone)
						}
						gate := breakdown(time.Now().Add(time.Minute), fail, call)
						if nth > 0 {
							gate = rotationtest.Nth(nth, call, before, failureOf(call))
						}
						from := time.Now()
						b.gate(gate)
						b.operation(t).run(3 * time.Hour)
						if gone := b.dead(t, acme, from); gone > 3*time.Minute {
							t.Errorf("readers had no live token for %v", gone)
						}
						b.gate(nil)
						b.inOrder(t)
					})
				})
			}
		}
	}
}

// nextRotation is how long it takes until one second before the third rotation
// from now on: by the hourly sweep or, where tokens live shorter than that, by
// the follow-up half a minute before its end.
func (b *harness) nextRotation(t *testing.T) time.Duration {
	t.Helper()
	doc, err := b.read(t.Context())
	must(t, err)
	if lifetime := time.Until(doc.ExpiresAt); lifetime < time.Hour {
		return 3*(lifetime-25*time.Second) - time.Second
	}
	return 3*time.Hour - time.Since(time.Now().Truncate(time.Hour)) - time.Second
}

// failureOf is a failure that leaves no end unknown.
func failureOf(call string) rotationtest.Fault {
	if call == "issuer.Redeem" {
		return unsent
	}
	return fail
}

// If the queue refuses messages for a while, no token expires: a sweep does the work of the
// lost messages.
func TestAQueueThatRefusesMessages(t *testing.T) {
	for _, lifetime := range threeLifetimes {
		for _, lasts := range []time.Duration{time.Minute, 20 * time.Minute, 3 * time.Hour} {
			t.Run(fmt.Sprintf("%v, for %v", lifetime, lasts), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newHarness(rotationtest.Personality{Lifetime: lifetime})
					b.connect(t)
					b.operation(t).run(b.nextRotation(t))
					from, end := time.Now(), time.Now().Add(lasts)
					b.gate(breakdown(end, fail, "followups.Send"))
					o := b.operation(t)
					o.run(lasts)
					during := b.dead(t, acme, from)
					o.run(time.Hour + 5*time.Minute) // in which a sweep comes
					repaired := time.Now()
					o.run(3 * time.Hour)
					if gone := b.dead(t, acme, repaired); gone != 0 {
						t.Errorf("after the next sweep, readers still had no live token for %v", gone)
					}
					if after := b.dead(t, acme, from) - during; after > time.Hour || lasts == time.Minute && after > 3*time.Minute {
						t.Errorf("when the breakdown was over, readers had no live token for another %v", after)
					}
					if lifetime >= 5400*time.Second && during > 0 { // for these, sweeps suffice
						t.Errorf("readers had no live token for %v", during)
					}
					b.inOrder(t)
				})
			})
		}
	}
}

// A follow-up that needs several hops survives that the queue refuses one of them.
func TestAHopThatIsRefusedIsSentAgain(t *testing.T) {
	for nth := range 6 {
		t.Run(fmt.Sprint(nth+1), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{Lifetime: 2400 * time.Second}) // its follow-up comes after half an hour
				b.connect(t)
				from := time.Now()
				b.gate(rotationtest.Nth(nth+1, "followups.Send", before, fail))
				b.operation(t).run(4 * time.Hour)
				if gone := b.dead(t, acme, from); gone > 3*time.Minute {
					t.Errorf("readers had no live token for %v", gone)
				}
				b.inOrder(t)
			})
		})
	}
}

// Whatever makes a run fail, a sweep follows within minutes.
func TestAFailedRunIsFollowedByASweep(t *testing.T) {
	for _, call := range []string{"ledger.Due", "ledger.Load", "ledger.Write"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				time.Sleep(time.Hour)
				b.FollowUps.Take()
				b.gate(breakdown(time.Now().Add(time.Minute), fail, call))
				_, _ = b.rotator().Sweep(t.Context())
				b.gate(nil)
				if b.record(t).Generation == 1 {
					return // the run went on by itself
				}
				if next := b.FollowUps.Next(); next.IsZero() || time.Until(next) > 2*time.Minute {
					t.Errorf("the next run is asked for at %v, want within two minutes", next)
				}
			})
		})
	}
}

// sweepsAsked lists when the sweeps come that were asked for since then.
func (b *harness) sweepsAsked(from time.Time) (times []time.Time) {
	for _, e := range b.Journal.Entries() {
		if q, ok := e.Effect.(rotationtest.Queued); ok && q.Request.Op == "sweep" && !e.At.Before(from) {
			times = append(times, e.At.Add(q.Delay))
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}

// Two thousand connections are due at once, at two redeems a second. Follow-up
// sweeps do not multiply, and consents and readers are served beside them.
func TestABacklogHoldsUpNeitherConsentsNorReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const connections = 2000
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		b.backlog(t, connections)
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour - time.Second)))
		b.FollowUps.Take()
		from, o := time.Now(), b.operation(t)
		asked := 0
		for minute := range 20 {
			o.pass(time.Minute)
			switch minute % 5 {
			case 2:
				c := token.Connection{Environment: "sandbox", Name: fmt.Sprintf("new%d", minute)}
				_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, c)
				must(t, err)
				b.consentTo(t.Context(), c) // which queues publish
				asked++
			case 4:
				o.send(rotation.Request{Op: "ensure", Connection: acme.String(), MinTTLSeconds: int64(600 + 1000*minute/5)})
				asked++
			}
		}
		o.run(40 * time.Minute)
		served, longest := 0, time.Duration(0)
		for _, m := range o.served {
			if m.Op == "sweep" {
				continue
			}
			served++
			longest = max(longest, m.served.Sub(m.sent))
		}
		if served < asked || longest > time.Minute {
			t.Errorf("%d of %d consents and readers were served, the slowest after %v", served, asked, longest)
		}
		sweeps := b.sweepsAsked(from)
		for i := range max(0, len(sweeps)-2) {
			if sweeps[i+2].Sub(sweeps[i]) < 30*time.Second {
				t.Errorf("three follow-up sweeps come within 30 s, at %v", sweeps[i])
				break
			}
		}
		if took := time.Since(from); len(sweeps) > int(took/(30*time.Second))+1 {
			t.Errorf("%d follow-up sweeps were asked for in %v", len(sweeps), took)
		}
		if n := o.left(); n > 5 {
			t.Errorf("%d messages are still waiting", n)
		}
		due, err := b.Ledger.Due(t.Context(), time.Now().Add(-time.Hour))
		must(t, err)
		if len(due) != 0 {
			t.Errorf("%d connections are still due", len(due))
		}
		b.presentedOnce(t)
		t.Logf("%d follow-up sweeps; the slowest of %d consents and readers waited %v", len(sweeps), served, longest)
	})
}

// left is how many messages wait to be processed.
func (o *operation) left() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.waiting)
}

// Many processes that meet failures at the same time ask for one sweep together.
func TestProcessesTogetherAskForOneSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		names := connectMany(t, b, 20)
		time.Sleep(time.Hour)
		b.FollowUps.Take()
		from := time.Now()
		var refused atomic.Int32
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.Call == "secrets.Current" && at.When == before {
				refused.Add(1)
				return fail
			}
			return rotationtest.Fault{}
		})
		for _, c := range names { // one process each, such as of an ensure
			_, err := b.rotator().Do(t.Context(), rotation.Request{Op: "ensure", Connection: c.String(), MinTTLSeconds: 3600})
			must(t, err)
		}
		if n := len(b.sweepsAsked(from)); refused.Load() == 0 || n == 0 || n > 2 {
			t.Errorf("%d processes that failed in the same second asked for %d sweeps, want one", len(names), n)
		}
	})
}
