//go:build explore || soak

package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Thirty days of fifty connections, hourly, where one call in a hundred meets a
// fault before or after its effect, that is one rotation in six. People consent
// again when they are asked to. Only what was never saved may be lost, and every notice
// has a cause.
func TestThirtyDaysWithFaults(t *testing.T) {
	const seed = 1
	const connections, hours = 50, 30 * 24
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.settings.Concurrency = 1
		w := &weather{b: b, random: rand.New(rand.NewPCG(seed, 0))}
		var names []token.Connection
		for n := range connections {
			c := token.Connection{Environment: "sandbox", Name: fmt.Sprintf("c-%02d", n)}
			_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, c)
			must(t, err)
			b.consentTo(t.Context(), c)
			names = append(names, c)
		}
		b.deliver(t.Context())
		b.gate(rotationtest.Watch(b.Journal, w.gate))
		for hour := range hours {
			for quarter := range 4 {
				time.Sleep(15 * time.Minute)
				for n, request := range b.FollowUps.Take() {
					w.process(fmt.Sprintf("function %d.%d.%d", hour, quarter, n), func(ctx context.Context) {
						_,
							_ = b.rotator().Do(ctx, request)
					})
				}
			}
			w.process(fmt.Sprintf("sweep %d", hour), func(ctx context.Context) { _, _ = b.rotator().Sweep(ctx) })
			for _, c := range names {
				if rec, _, _ := b.Ledger.Load(t.Context(), c); rec.Status == rotation.NeedsConsent {
					w.asked++
					w.process(fmt.Sprintf("callback %d of %s", hour, c), func(ctx context.Context) { b.consentTo(ctx, c) })
				}
			}
		}
		b.gate(nil)
		for range 3 {
			time.Sleep(20 * time.Minute)
			b.deliver(t.Context())
			b.sweep(t)
		}
		w.check(t, connections*hours)
		if err := b.undamaged(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// check checks the invariants of the month and logs what happened in it.
func (w *weather) check(t *testing.T, expected int) {
	if err := rotationtest.CheckAtRest(w.b.Harness); err != nil {
		t.Error(err)
		if v, ok := errors.AsType[*rotationtest.Violation](err); ok {
			t.Log("before that:\n" + w.b.Journal.Before(v, 15*time.Minute))
		}
	}
	for _, surplus := range w.b.unfounded() {
		t.Errorf("people were notified of what was none: %s", surplus)
	}
	kinds := map[string]int{}
	for _, kind := range w.b.notices() {
		kinds[kind]++
	}
	rotations := len(w.b.presentations())
	t.Logf("%d rotations, %d faults, %d new consents; people were notified of %v", rotations, w.faults, w.asked, kinds)
	if rotations < expected*9/10 {
		t.Errorf("%d rotations, want about %d", rotations, expected)
	}
}

// unfounded lists the notices that had no cause when they were sent: the row did
// not say that a consent is needed, or people had been notified; the process had not
// just lost an answer, failed to save one, or been refused; no answer of the
// connection had come in part; the attempt was the process's own; or nothing in
// this month is a cause at all. For runs one at a time.
func (b *harness) unfounded() (surplus []string) {
	waiting, inPart := map[token.Connection]bool{}, map[token.Connection]bool{}
	attempt, begunBy := map[token.Connection]string{}, map[token.Connection]string{}
	// of a process
	lost, unsaved, cut, denied := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case rotationtest.Wrote:
			delete(waiting, e.Connection)
			if effect.Change.Record.NoticePending {
				waiting[e.Connection] = true
			}
			if a := effect.Change.Record.Attempt; a != nil && a.ID != attempt[e.Connection] {
				attempt[e.Connection], begunBy[e.Connection] = a.ID, e.Actor
			}
			if len(effect.Change.Mark) > 0 {
				delete(inPart, e.Connection)
			}
		case rotationtest.Responded:
			inPart[e.Connection] = inPart[e.Connection] || cut[e.Actor]
			unsaved[e.Actor] = false
		case rotationtest.Stored:
			if strings.HasPrefix(effect.Version.ID, "escrow-") {
				inPart[e.Connection] = inPart[e.Connection] || cut[e.Actor]
				unsaved[e.Actor] = false
			}
		case rotationtest.Presented:
			cut[e.Actor] = false
		case rotationtest.Faulted:
			redeeming := effect.At.Call == "issuer.Redeem"
			cut[e.Actor] = cut[e.Actor] || redeeming && effect.Fault.Kind == rotationtest.Cut
			denied[e.Actor] = denied[e.Actor] || redeeming && effect.Fault.Kind == rotationtest.Deny
		case rotationtest.Answered:
			lost[e.Actor], unsaved[e.Actor] = effect.Class == rotation.UnknownResult, effect.Class == rotation.Captured
		case rotationtest.Noticed:
			n := effect.Notice
			founded := map[string]bool{
				rotation.NoticeUnknown: lost[e.Actor],
				// with those of the last hour, each of which may have had a notice
				rotation.NoticeNeedsConsent: waiting[n.Connection] || n.Connection.IsZero() && len(waiting) > 0,
				rotation.NoticeUnsaved:      unsaved[e.Actor],
				rotation.NoticeRejected:     inPart[n.Connection],
				rotation.NoticeRecovered:    begunBy[n.Connection] != e.Actor,
				rotation.NoticeConfigError:  denied[e.Actor],
			}[n.Kind]
			if !founded {
				surplus = append(surplus, fmt.Sprintf("%s of %s at %v by %s", n.Kind, n.Connection, e.At, e.Actor))
			}
		}
	}
	return surplus
}

// weather is random faults.
type weather struct {
	b      *harness
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
	case w.random.IntN(200) != 0:
		return rotationtest.Fault{}
	}
	options := consistent(at)
	fault := options[w.random.IntN(len(options))]
	w.faults++
	if fault.For > 0 { // or two effects that are late land at once, in any order
		fault.For += time.Duration(w.faults) * time.Microsecond
	}
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
