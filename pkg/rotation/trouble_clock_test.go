package rotation_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// noticeClock is the kind of a notice that two clocks differ.
const noticeClock = "clock"

// shownRight fails the test unless readers see a live token, and its end as the server sees it.
func (b *harness) shownRight(t *testing.T) {
	t.Helper()
	doc, err := b.read(t.Context())
	must(t, err)
	life := b.lives(t)[doc.AccessToken]
	if off := doc.ExpiresAt.Sub(life.to).Abs(); off > time.Minute || time.Now().After(life.to) {
		t.Errorf("at %v readers see a token until %v; the server takes it until %v", time.Now(), doc.ExpiresAt, life.to)
	}
}

// One rotation, or one consent, by a process with a wrong clock: readers always
// have a live token, the secret is right again with the next sweep, and people
// are notified once.
func TestOneWrongClockLeavesNoDeadTokenBehind(t *testing.T) {
	for _, skew := range []time.Duration{3 * time.Hour, -3 * time.Hour, 26 * time.Hour, -26 * time.Hour} {
		for _, what := range []string{"rotation", "consent"} {
			t.Run(fmt.Sprintf("%s, clock off by %v", what, skew), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newHarness(rotationtest.Personality{})
					b.connect(t)
					time.Sleep(10 * time.Minute)
					switch what {
					case "rotation":
						report, err := b.skewed(skew).Rotate(t.Context(), acme)
						must(t, err)
						if got := report.Connections[0].Outcome; got != rotation.Rotated {
							t.Fatalf("the rotation ended %s", got)
						}
					case "consent":
						b.consentByClock(t, skew)
						b.deliver(t.Context())
					}
					from := time.Now()
					b.operation(t).run(50*time.Minute + 5*time.Second) // until after the next sweep
					b.shownRight(t)
					b.operation(t).run(11 * time.Hour)
					if gone := b.dead(t, acme, from); gone != 0 {
						t.Errorf("readers had no live token for %v", gone)
					}
					if n := b.noticesOf(noticeClock); n != 1 || len(b.notices()) != n {
						t.Errorf("of %d notices, %d are of a clock; want one and no other", len(b.notices()), n)
					}
					b.inOrder(t)
				})
			})
		}
	}
}

// A process with a clock hours ahead fails or ends while it rotates. The others do not
// wait until their clocks show its time: readers have a live token again after the next
// sweep or, if the answer was lost, a lease and a quiet period later.
func TestAFailureUnderAWrongClockLastsUntilTheNextSweep(t *testing.T) {
	for _, test := range []struct {
		when  rotationtest.Moment
		fault rotationtest.Fault
		lost  bool
	}{
		{before, crash, true}, {after, crash, true}, {before, fail, true}, {after, fail, true},
		{before, throttle, false}, {before, unsent, false}, {before, rotationtest.Fault{Kind: rotationtest.Odd}, true},
	} {
		for _, skew := range []time.Duration{3 * time.Hour, 26 * time.Hour} {
			t.Run(fmt.Sprintf("%s %s the refresh, clock off by %v", test.fault.Kind, test.when, skew), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := &faultScenario{harness: newHarness(overlap), t: t}
					m.connect(t)
					time.Sleep(50 * time.Minute)
					m.first("issuer.Redeem", test.when, test.fault)
					var process sync.WaitGroup
					process.Go(func() { _, _ = m.skewed(skew).Rotate(t.Context(), acme) })
					process.Wait()
					m.calm()
					from := time.Now()
					m.operation(t).run(11 * time.Hour)
					most := 30 * time.Minute // the token ends at 1:30, and the sweep is at 2:00
					if test.lost {
						most += m.settings.Lease + m.settings.Quiet + time.Minute
					}
					if gone := m.harness.dead(t, acme, from); gone > most {
						t.Errorf("readers had no live token for %v, want at most %v", gone, most)
					}
					m.inOrder(t)
				})
			})
		}
	}
}

// consentByClock lets pat allow again, with a callback that has a wrong clock.
func (b *harness) consentByClock(t *testing.T, skew time.Duration) {
	t.Helper()
	consents := b.consentsBut(func(cfg *rotation.ConsentsConfig) {
		cfg.Now = func() time.Time { return time.Now().Add(skew) }
	})
	exchange, err := consents.Prepare(t.Context(), acme, b.record(t).Epoch)
	must(t, err)
	code := b.Issuer.Authorize(pat, redirectURI, "")
	result, err := exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI})
	if result != rotation.Connected {
		t.Fatalf("the consent ended %s, %v", result, err)
	}
}

// Clocks that stay apart: readers always have a live token, whichever clock is
// wrong, and people are notified once a day. If clocks differ by seconds only, there is no
// notice.
func TestClocksThatStayApartAreOneNoticeADay(t *testing.T) {
	for _, test := range []struct {
		lifetime, skew, behind time.Duration
		least, most            int // notices in 47 hours
	}{
		{5400 * time.Second, 3 * time.Hour, 0, 1, 2},
		{5400 * time.Second, -3 * time.Hour, 0, 1, 2},
		{5400 * time.Second, 0, 5 * time.Hour, 1, 2},
		{5400 * time.Second, 0, -5 * time.Hour, 1, 2},
		{7200 * time.Second, 3 * time.Hour, 0, 1, 2},
		{5400 * time.Second, 20 * time.Second, 0, 0, 0},
		{5400 * time.Second, -20 * time.Second, 0, 0, 0},
		{5400 * time.Second, 0, 20 * time.Second, 0, 0},
	} {
		name := fmt.Sprintf("%v, ours off by %v, the server's behind by %v", test.lifetime, test.skew, test.behind)
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{Lifetime: test.lifetime, Behind: test.behind})
				result, err := b.consent(t.Context(), pat, rotation.Identity{Company: "42"})
				if result != rotation.Connected {
					t.Fatalf("the consent ended %s, %v", result, err)
				}
				o, connecting := b.operation(t), b.noticesOf(noticeClock) // by the callback, which is a program of its own
				o.skew = test.skew
				o.run(4 * time.Hour) // what was connected by another clock has been rotated since
				from := time.Now()
				o.run(43 * time.Hour)
				if gone := b.dead(t, acme, from); gone != 0 {
					t.Errorf("readers had no live token for %v", gone)
				}
				if n := b.noticesOf(noticeClock) - connecting; n < test.least || n > test.most {
					t.Errorf("%d notices of a clock in 47 hours, want %d to %d", n, test.least, test.most)
				}
				if n := len(b.presentations()); n > 2*47 {
					t.Errorf("%d presentations in 47 hours", n)
				}
			})
		})
	}
}

// ahead moves the shared clock of an environment, like a process with a clock that is
// ahead.
func (b *harness) ahead(t *testing.T, environment string, by time.Duration) {
	t.Helper()
	_, err := b.RateLimiter.Reserve(t.Context(), environment, time.Now().Add(by), time.Second/2)
	must(t, err)
}

// A shared rate limiter that another process has moved hours ahead is not
// believed: nothing waits for it, and the log says so.
func TestARateLimiterThatIsFarAheadIsNotBelieved(t *testing.T) {
	for _, by := range []time.Duration{20 * time.Minute, 3 * time.Hour, 1000 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				names := append(connectMany(t, b, 20), b.connectIn(t, "production", 1)...)
				time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour - time.Second)))
				from := time.Now()
				b.ahead(t, "sandbox", by)
				b.operation(t).run(2 * time.Minute)
				for _, c := range names {
					rec, _, err := b.Ledger.Load(t.Context(), c)
					if must(t, err); rec.Generation != 1 {
						t.Errorf("%s was not rotated within two minutes", c)
					}
					if gone := b.dead(t, c, from); gone != 0 {
						t.Errorf("readers of %s had no live token for %v", c, gone)
					}
				}
				if !strings.Contains(b.Log.String(), "level=WARN") {
					t.Error("nothing warns of the rate limiter")
				}
				// Its own rate still holds: ten at once, then two a second.
				var at []time.Time
				for _, e := range b.Journal.Entries() {
					if p, ok := e.Effect.(rotationtest.Presented); ok && !p.Code {
						at = append(at, e.At)
					}
				}
				slices.SortFunc(at, time.Time.Compare)
				if len(at) < len(names) || at[len(at)-1].Sub(at[0]) < 4*time.Second {
					t.Errorf("%d redeems, at %v", len(at), at)
				}
			})
		})
	}
}

// A backlog of the shared rate limiter within bounds is believed: many processes
// together keep to one rate.
func TestARateLimiterThatIsALittleAheadIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		b.ahead(t, "sandbox", 30*time.Second)
		began := time.Now()
		b.sweep(t)
		if took := time.Since(began); took < 25*time.Second || took > 35*time.Second {
			t.Errorf("the redeem waited %v for its place, want half a minute", took)
		}
		b.inOrder(t)
	})
}

// An environment with too much work for one run, or with a rate limiter that asks for a wait
// longer than the run, does not take the time of other environments.
func TestOneEnvironmentsBacklogDoesNotStopTheOthers(t *testing.T) {
	t.Run("too many due", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			sandbox := b.connectIn(t, "sandbox", 400)
			b.connectedLater(t, sandbox)
		})
	})
	t.Run("no place in this run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			sandbox := b.connectIn(t, "sandbox", 40)
			b.settings.RedeemRate = 0.05
			b.connectedLater(t, sandbox)
		})
	})
}

// connectedLater connects another environment, which is due after the first, and
// lets a run of three minutes meet both.
func (b *harness) connectedLater(t *testing.T, busy []token.Connection) {
	t.Helper()
	time.Sleep(20 * time.Minute)
	others := b.connectIn(t, "production", 3)
	time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour - time.Second)))
	b.FollowUps.Take()
	o := b.operation(t)
	o.life = 3 * time.Minute
	o.pass(4 * time.Minute)
	for _, c := range others {
		rec, _, err := b.Ledger.Load(t.Context(), c)
		if must(t, err); rec.Generation != 1 {
			t.Errorf("%s was not rotated by the run that had no time for all of %s", c, busy[0].Environment)
		}
	}
	left := 0
	for _, c := range busy {
		if rec, _, err := b.Ledger.Load(t.Context(), c); err != nil || rec.Generation == 0 {
			left++
		}
	}
	if left == 0 {
		t.Error("the run had time for all")
	}
	o.group.Wait()
}
