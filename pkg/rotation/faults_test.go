package rotation_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// fault is one row of the table of what can go wrong. acme has been connected
// for an hour when it happens. After that there are no more faults, and three sweeps must
// bring everything to rest. Then the test checks all invariants, the notices, and how
// often one refresh token was presented.
type fault struct {
	name    string
	server  rotationtest.Personality
	happens func(*faultScenario) rotation.Outcome
	outcome rotation.Outcome // what the run that it happens to reports
	notices []string         // all notices, until settle
	shown   int              // presentations of the token that is presented most often; 0: one
	status  rotation.Status  // at rest; empty: active
}

// none is the value of shown if nothing is presented at all.
const none = -1

// crashed is the outcome of a process that has died.
const crashed rotation.Outcome = "crashed"

// faultScenario is the harness a fault happens on.
type faultScenario struct {
	*harness
	t         *testing.T
	gates     []rotationtest.Gate
	processes atomic.Int32 // begun so far
	dead      sync.Map     // those of them that have crashed
}

// Short forms, for the table to be read in lines.
const (
	before = rotationtest.Before
	after  = rotationtest.After
)

var (
	crash    = rotationtest.Fault{Kind: rotationtest.Crash}
	fail     = rotationtest.Fault{Kind: rotationtest.Fail}
	throttle = rotationtest.Fault{Kind: rotationtest.Throttle}
	cut      = rotationtest.Fault{Kind: rotationtest.Cut}
	stale    = rotationtest.Fault{Kind: rotationtest.Stale}
	unsent   = rotationtest.Fault{Kind: rotationtest.Unsent}

	overlap = rotationtest.Personality{Overlap: true}
	family  = rotationtest.Personality{KillFamily: true}
)

func freeze(d time.Duration) rotationtest.Fault {
	return rotationtest.Fault{Kind: rotationtest.Freeze, For: d}
}
func slow(d time.Duration) rotationtest.Fault {
	return rotationtest.Fault{Kind: rotationtest.Slow, For: d}
}
func late(d time.Duration) rotationtest.Fault {
	return rotationtest.Fault{Kind: rotationtest.Late, For: d}
}

// The order of a rotation's writes: Begin, Decide, Publish.
const (
	begin = iota + 1
	decide
	publish

	giveUp, recordNotice = decide, publish // in their place, where the token is refused
)

// nth fails once, at the nth passage.
func (m *faultScenario) nth(n int, call string, when rotationtest.Moment, f rotationtest.Fault) *faultScenario {
	return m.through(rotationtest.Nth(n, call, when, f))
}

// first fails at the first passage.
func (m *faultScenario) first(call string, when rotationtest.Moment, f rotationtest.Fault) *faultScenario {
	return m.nth(1, call, when, f)
}

// down fails every call with a name that begins so, from now on.
func (m *faultScenario) down(prefixes ...string) *faultScenario {
	return m.downAfter(0, "", prefixes...)
}

// downAfter fails them from the nth return of a call on.
func (m *faultScenario) downAfter(n int, trigger string, prefixes ...string) *faultScenario {
	var seen atomic.Int32
	return m.through(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
		if at.Call == trigger && at.When == after {
			seen.Add(1)
		}
		if at.When == before && int(seen.Load()) >= n && slices.ContainsFunc(prefixes,
			func(p string) bool { return strings.HasPrefix(at.Call, p) }) {
			return fail
		}
		return rotationtest.Fault{}
	})
}

// firstN fails before each of the first n calls.
func (m *faultScenario) firstN(n int, call string, f rotationtest.Fault) *faultScenario {
	var seen atomic.Int32
	return m.through(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
		if at.Call == call && at.When == before && int(seen.Add(1)) <= n {
			return f
		}
		return rotationtest.Fault{}
	})
}

// during lets another actor act at the nth passage.
func (m *faultScenario) during(n int, call string, when rotationtest.Moment, act func()) *faultScenario {
	var seen atomic.Int32
	return m.through(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
		if at.Call == call && at.When == when && int(seen.Add(1)) == n {
			act()
		}
		return rotationtest.Fault{}
	})
}

// meets replaces the issuer, until settle.
func (m *faultScenario) meets(issuer rotation.Issuer) *faultScenario {
	m.issuer = issuer
	return m
}

// through adds a gate.
func (m *faultScenario) through(g rotationtest.Gate) *faultScenario {
	m.gates = append(m.gates, g)
	all := rotationtest.Gates(m.gates...)
	m.gate(rotationtest.Watch(m.Journal, func(ctx context.Context, at rotationtest.Passage) rotationtest.Fault {
		if _, dead := m.dead.Load(at.Actor); dead {
			return crash // what it has deferred never happens, either
		}
		fault := all(ctx, at)
		if fault.Kind == rotationtest.Crash {
			m.dead.Store(at.Actor, true)
		}
		return fault
	}))
	return m
}

// calm removes all gates.
func (m *faultScenario) calm() *faultScenario {
	m.gates = nil
	m.gate(nil)
	return m
}

// process runs act as a process of its own, which a crash ends.
func (m *faultScenario) process(act func(context.Context) (rotation.Report, error)) rotation.Outcome {
	outcome := crashed
	done := make(chan struct{})
	go func() {
		defer close(done)
		name := fmt.Sprintf("function %d", m.processes.Add(1))
		ctx, cancel := context.WithTimeout(rotationtest.WithActor(context.Background(), name), 5*time.Minute)
		defer cancel()
		report, err := act(ctx)
		switch {
		case err != nil:
			outcome = rotation.Failed
		case len(report.Connections) == 0:
			outcome = rotation.Fresh
		default:
			outcome = report.Connections[0].Outcome
		}
	}()
	<-done
	return outcome
}

func (m *faultScenario) rotate() rotation.Outcome {
	return m.process(func(ctx context.Context) (rotation.Report, error) { return m.rotator().Rotate(ctx, acme) })
}

func (m *faultScenario) sweep() rotation.Outcome {
	return m.process(func(ctx context.Context) (rotation.Report, error) { return m.rotator().Sweep(ctx) })
}

func (m *faultScenario) disconnect() rotation.Outcome {
	return m.process(func(ctx context.Context) (rotation.Report, error) { return m.rotator().Disconnect(ctx, acme) })
}

// consentAgain lets pat consent again.
func (m *faultScenario) consentAgain() rotation.Outcome { return m.consentOf(pat) }

// consentOf lets a user consent and returns the outcome of the callback.
func (m *faultScenario) consentOf(who rotation.Identity) rotation.Outcome {
	result := crashed
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(rotationtest.WithActor(context.Background(), "callback"), time.Minute)
		defer cancel()
		got, _ := m.consent(ctx, who, rotation.Identity{Company: "42"})
		result = rotation.Outcome(got)
	}()
	<-done
	return result
}

// skewed is a rotator with a wrong clock.
func (m *faultScenario) skewed(by time.Duration) *rotation.Rotator {
	return m.rotatorBut(func(cfg *rotation.Config) { cfg.Now = func() time.Time { return time.Now().Add(by) } })
}

// mostShown is how often the refresh token was presented that was presented most often.
func (m *faultScenario) mostShown() (most int) {
	for _, n := range m.presentations() {
		most = max(most, n)
	}
	return most
}

// unspent runs act and asserts that nothing is presented.
func (m *faultScenario) unspent(act func() rotation.Outcome) rotation.Outcome {
	outcome := act()
	if n := len(m.presentations()); n != 0 {
		m.t.Errorf("%d refresh tokens were presented all the same", n)
	}
	return outcome
}

// hourly sweeps every hour, and returns the last outcome.
func (m *faultScenario) hourly(n int) (outcome rotation.Outcome) {
	for range n {
		outcome = m.sweep()
		time.Sleep(time.Hour)
	}
	return outcome
}

// burst throttles the first n calls, and returns the first outcome of the
// sweeps that follow each other until one gets through.
func (m *faultScenario) burst(n int, call string) rotation.Outcome {
	outcome := m.firstN(n, call, throttle).rotate()
	for last := outcome; last != rotation.Published && last != rotation.Rotated &&
		last != rotation.Fresh; last = m.sweep() {
		time.Sleep(15 * time.Minute)
	}
	return outcome
}

// answers counts the answers to refreshes that the ledger has been given.
func (m *faultScenario) answers() (n int) {
	for _, e := range m.Journal.Entries() {
		if saved, ok := e.Effect.(rotationtest.Responded); ok && saved.TokenResponse.Source == rotation.FromRefresh {
			n++
		}
	}
	return n
}

// beside starts a second process, with a wrong clock, while the first one's
// POST is on its way.
func (m *faultScenario) beside(skew time.Duration) rotation.Outcome {
	return m.during(1, "issuer.Redeem", after, func() {
		m.process(func(ctx context.Context) (rotation.Report, error) { return m.skewed(skew).Rotate(ctx, acme) })
	}).rotate()
}

func (m *faultScenario) withdraw() {
	doc, err := m.read(context.Background())
	must(m.t, err)
	m.Issuer.Withdraw(context.Background(), doc.AccessToken)
}

// foreign makes readers see a document that acme's installation did not write.
func (m *faultScenario) foreign(doc token.Document, stack string, later int64) {
	doc.Stack, doc.Generation = stack, doc.Generation+later
	value, err := doc.Encode()
	must(m.t, err)
	must(m.t, m.SecretStore.Edit(context.Background(), acme, value))
}

func TestTheFaultTable(t *testing.T) {
	for i, test := range faults {
		t.Run(fmt.Sprintf("%02d %s", i+1, test.name), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &faultScenario{harness: newHarness(test.server), t: t}
				m.connect(t)
				time.Sleep(time.Hour)
				if outcome := test.happens(m); outcome != test.outcome {
					t.Errorf("it reports %s, want %s", outcome, test.outcome)
				}
				m.calm()
				if err := m.settle(t.Context()); err != nil {
					t.Error(err)
				}
				time.Sleep(2 * time.Hour) // what is still on its way arrives
				if err := rotationtest.Check(m.Harness); err != nil {
					t.Error(err)
				}
				if status := m.record(t).Status; status != cmp.Or(test.status, rotation.Active) {
					t.Errorf("at rest it is %s, want %s", status, cmp.Or(test.status, rotation.Active))
				}
				if kinds := m.notices(); !slices.Equal(kinds, test.notices) {
					t.Errorf("people were notified of %v, want %v", kinds, test.notices)
				}
				if n := m.mostShown(); n != max(cmp.Or(test.shown, 1), 0) {
					t.Errorf("a refresh token was presented %d times, want %d", n, max(cmp.Or(test.shown, 1), 0))
				}
				if t.Failed() {
					t.Log("\n" + m.Journal.String())
				}
			})
		})
	}
}
