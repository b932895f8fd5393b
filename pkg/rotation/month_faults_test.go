//go:build explore || soak

package rotation_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Thirty days of fifty connections, hourly, where one passage of a gate in a
// thousand meets a fault: one rotation in forty. People consent anew when they are asked to. Nothing but
// what was never saved may be lost, every alarm is raised, and the same seed
// gives the same trace once more, byte for byte.
func TestThirtyDaysWithFaults(t *testing.T) {
	first := thirtyDays(t, 1)
	if again := thirtyDays(t, 1); again != first {
		t.Error("the same seed gave another trace")
	}
}

func thirtyDays(t *testing.T, seed uint64) (trace string) {
	const connections, hours = 50, 30 * 24
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.settings.Concurrency = 1 // or the trace has no order
		w := &weather{b: b, random: rand.New(rand.NewPCG(seed, 0))}
		var names []token.Connection
		for n := range connections {
			c := token.Connection{Environment: "sandbox", Name: fmt.Sprintf("c-%02d", n)}
			_, err := rotation.Register(t.Context(), b.Ledger, b.Vault, b.settings.Stack, c)
			must(t, err)
			b.consentTo(t.Context(), c)
			names = append(names, c)
		}
		b.deliver(t.Context())
		b.gate(rotationtest.Watch(b.Journal, w.gate))
		for hour := range hours {
			time.Sleep(time.Hour)
			for _, request := range append(b.FollowUps.Take(), rotation.Request{Op: "sweep"}) {
				w.process(fmt.Sprintf("function %d", hour), func(ctx context.Context) { _, _ = b.rotator().Do(ctx, request) })
			}
			for _, c := range names {
				if rec, _, _ := b.Ledger.Load(t.Context(), c); rec.Status == rotation.NeedsConsent {
					w.asked++
					w.process(fmt.Sprintf("callback %d", hour), func(ctx context.Context) { b.consentTo(ctx, c) })
				}
			}
		}
		b.gate(nil)
		for range 3 {
			time.Sleep(20 * time.Minute)
			b.deliver(t.Context())
			b.sweep(t)
		}
		if err := rotationtest.CheckAtRest(b.Bench); err != nil {
			t.Error(err)
		}
		kinds := map[string]int{}
		for _, kind := range b.notices() {
			kinds[kind]++
		}
		rotations := len(b.presentations())
		t.Logf("%d rotations, %d faults, %d new consents; people were told %v", rotations, w.faults, w.asked, kinds)
		if rotations < connections*hours*9/10 {
			t.Errorf("%d rotations in %d hours", rotations, hours)
		}
		trace = b.Journal.String()
	})
	return trace
}

// weather is faults at random.
type weather struct {
	b      *bench
	mu     sync.Mutex
	random *rand.Rand
	dead   map[string]bool
	faults int
	asked  int
}

func (w *weather) gate(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case at.When == rotationtest.Landing || at.Actor == "":
		return rotationtest.Fault{}
	case w.dead[at.Actor]:
		return crash
	case w.random.IntN(1000) != 0:
		return rotationtest.Fault{}
	}
	options := consistent(at)
	fault := options[w.random.IntN(len(options))]
	w.faults++
	if fault.Kind == rotationtest.Crash {
		w.dead[at.Actor] = true
	}
	return fault
}

// process runs act as a process, which a fault may end.
func (w *weather) process(name string, act func(context.Context)) {
	w.mu.Lock()
	w.dead = map[string]bool{}
	w.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(rotationtest.WithActor(context.Background(), name), 15*time.Minute)
		defer cancel()
		act(ctx)
	}()
	<-done
}

// consentTo lets pat connect c again.
func (b *bench) consentTo(ctx context.Context, c token.Connection) {
	consents := b.consents()
	epoch, err := consents.Epoch(ctx, c)
	if err != nil {
		return
	}
	exchange, err := consents.Prepare(ctx, c, epoch)
	if err != nil {
		return
	}
	_, _ = exchange.Redeem(ctx, rotation.Consent{Code: b.Issuer.Authorize(pat, redirectURI, ""), RedirectURI: redirectURI})
}
