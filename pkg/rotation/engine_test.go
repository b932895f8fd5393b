package rotation_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestADayOfHourlySweepsPresentsEachRefreshTokenOnce(t *testing.T) {
	for name, personality := range rotationtest.Personalities {
		if personality.NoRotation {
			continue // a server that gives no new refresh token has a test of its own
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(personality)
				b.connect(t)
				for hour := range 24 {
					time.Sleep(time.Hour)
					report := b.sweep(t)
					if report.Outcomes[rotation.Rotated] != 1 || report.Due != 1 {
						t.Fatalf("hour %d: %+v", hour, report)
					}
					if err := b.works(t.Context()); err != nil {
						t.Fatalf("hour %d: %v", hour, err)
					}
				}
				counts := b.presentations()
				for fp, n := range counts {
					if n != 1 {
						t.Errorf("refresh token %s was presented %d times", fp, n)
					}
				}
				if rec := b.record(t); len(counts) != 24 || rec.Generation != 24 {
					t.Errorf("%d tokens presented, generation %d; want 24", len(counts), rec.Generation)
				}
				if kinds := b.notices(); len(kinds) != 0 {
					t.Errorf("a faultless day gave notices: %v", kinds)
				}
			})
		})
	}
}

func TestTwentySweepsAtOnceRedeemOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		// The answer takes a while, so that all twenty meet.
		slow := rotationtest.Always("issuer.Redeem", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Slow,
			For: 3 * time.Second})
		// The index lags, so that all twenty find it due.
		b.gate(rotationtest.Gates(slow, rotationtest.Always("ledger.Due", rotationtest.Before,
			rotationtest.Fault{Kind: rotationtest.Stale})))
		outcomes := map[rotation.Outcome]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				report, err := b.rotator().Sweep(t.Context())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for outcome, n := range report.Outcomes {
					outcomes[outcome] += n
				}
			})
		}
		wg.Wait()
		if outcomes[rotation.Rotated] != 1 || outcomes[rotation.Busy]+outcomes[rotation.Fresh] != 19 {
			t.Errorf("outcomes %v, want 1 rotated and 19 busy or fresh", outcomes)
		}
		for fp, n := range b.presentations() {
			if n != 1 {
				t.Errorf("refresh token %s was presented %d times", fp, n)
			}
		}
		if err := b.works(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestASweepWithNothingDueReadsOnceAndWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		var calls []string
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.When == rotationtest.Before {
				calls = append(calls, at.Call)
			}
			return rotationtest.Fault{}
		})
		if report := b.sweep(t); report.Due != 0 || !slices.Equal(calls, []string{"ledger.Due"}) {
			t.Errorf("due %d, calls %v; want one ledger.Due", report.Due, calls)
		}
	})
}

// connectMany connects n connections and returns their names.
func connectMany(t *testing.T, b *harness, n int) []token.Connection {
	t.Helper()
	var names []token.Connection
	for i := range n {
		c := token.Connection{Environment: "sandbox", Name: "c" + string(rune('a'+i))}
		rec, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, c)
		if err != nil {
			t.Fatal(err)
		}
		exchange, err := b.consents().Prepare(t.Context(), c, rec.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		code := b.Issuer.Authorize(pat, redirectURI, "")
		if result, err := exchange.Redeem(t.Context(), rotation.Consent{Code: code,
			RedirectURI: redirectURI}); result != rotation.Connected {
			t.Fatalf("consent of %s: %s, %v", c, result, err)
		}
		names = append(names, c)
	}
	b.deliver(t.Context())
	return names
}

func TestARunWithoutTimeDefersAndAsksForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		report, err := b.rotator().Sweep(ctx)
		must(t, err)
		if report.Outcomes[rotation.Deferred] != 1 || len(b.presentations()) != 0 {
			t.Errorf("%+v", report)
		}
		time.Sleep(2 * time.Minute)
		b.deliver(t.Context())
		if err := b.works(t.Context()); err != nil || b.record(t).Generation != 1 {
			t.Errorf("the follow-up sweep did not do it: %v", err)
		}
	})
}

func TestThePutBudgetIsCheckedBeforeATokenIsSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.settings.PutsPerDay = 3
		b.connect(t)
		for range 2 {
			if got := b.rotate(t); got.Outcome != rotation.Rotated {
				t.Fatalf("%+v", got)
			}
		}
		presented := len(b.presentations())
		if got := b.rotate(t); got.Outcome != rotation.Deferred || len(b.presentations()) != presented {
			t.Errorf("%+v", got)
		}
		time.Sleep(24 * time.Hour)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil || b.record(t).Generation != 3 {
			t.Errorf("a day later: %v, generation %d", err, b.record(t).Generation)
		}
	})
}

func TestRequestsAreCheckedBeforeAnythingIsTouched(t *testing.T) {
	b := newHarness(rotationtest.Personality{})
	for _, request := range []rotation.Request{{}, {Op: "delete"}, {Op: "rotate"}, {Op: "rotate", Connection: "acme"},
		{Op: "rotate", Connection: "Sandbox/acme"},
		{Op: "ensure", Connection: "sandbox/acme"}, {Op: "sweep", Connection: "sandbox/acme"},
		{Op: "publish", Connection: "sandbox/../x"}} {
		if _, err := b.rotator().Do(t.Context(), request); !errors.Is(err, rotation.ErrBadRequest) {
			t.Errorf("%+v: %v", request, err)
		}
	}
	report, err := b.rotator().Do(t.Context(), rotation.Request{Op: "rotate", Connection: "sandbox/nobody"})
	if err != nil || report.Outcomes[rotation.NotFound] != 1 {
		t.Errorf("unknown connection: %+v, %v", report, err)
	}
	if entries := b.Journal.Entries(); len(entries) != 0 {
		t.Errorf("something was touched: %v", b.Journal.String())
	}
}

func TestAFaultOfOneConnectionStaysWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		names := connectMany(t, b, 4)
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.Connection == names[1] {
				if at.Call == "ledger.Write" {
					panic("a poisoned row")
				}
			}
			return rotationtest.Fault{}
		})
		time.Sleep(time.Hour)
		report := b.sweep(t)
		if report.Outcomes[rotation.Rotated] != 3 || report.Outcomes[rotation.Failed] != 1 {
			t.Errorf("%v", report.Outcomes)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
