//go:build conformance && soak

package conformance

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

var (
	seed  = flag.Uint64("seed", 0, "of the random kills; 0: another one each time")
	kills = flag.Int("kills", 200, "how many rotations to kill")
)

// TestKilledAtAnyTime ends rotations with SIGKILL at random times, on ten
// installations side by side, half of them with a provider that grants grace.
// After each kill the connection must come to rest by itself as it does in
// TestKilledAtEveryCall, and the same connection goes on to the next kill.
func TestKilledAtAnyTime(t *testing.T) {
	*seed = cmp.Or(*seed, uint64(time.Now().UnixNano()))
	t.Logf("seed %d", *seed)
	const side = 5 // by side, for each provider
	c := startCloud(t)
	var mu sync.Mutex
	ends := map[string]int{}
	t.Run("installations", func(t *testing.T) {
		for _, grace := range []int{0, 1} {
			p := startProvider(t, grace, 10*time.Minute)
			for n := range side {
				t.Run(fmt.Sprintf("GRACE=%d-%d", grace, n), func(t *testing.T) {
					t.Parallel()
					v := &victim{installation: install(t, c, p, fmt.Sprintf("any-%d-%d", grace, n), quick), grace: grace,
						random: rand.New(rand.NewPCG(*seed, uint64(grace*side+n)))}
					for range (*kills + 2*side - 1) / (2 * side) {
						end := v.next()
						mu.Lock()
						ends[end]++
						mu.Unlock()
					}
					v.presentedOnceUnlessLost()
					v.keepsSecrets()
				})
			}
		}
	})
	total := 0
	for _, n := range ends {
		total += n
	}
	t.Logf("%d rotations killed (seed %d):", total, *seed)
	for _, end := range slices.Sorted(maps.Keys(ends)) {
		t.Logf("  %4d %s", ends[end], end)
	}
	if total < *kills {
		t.Errorf("%d rotations were killed, want %d", total, *kills)
	}
}

// victim is an installation; its rotations are killed again and again.
type victim struct {
	*installation
	grace     int
	random    *rand.Rand
	connected bool
	ordinary  time.Duration // what a rotation takes from a cold start, as far as is known now
	open      int           // kills between the provider's commit and the first saved copy
}

// next kills one rotation and says where it was and how the connection ended.
func (v *victim) next() string {
	if !v.connected {
		v.connect("peer/acme")
		v.connected = true
	}
	first := v.read("peer/acme")
	where, open := whereKilled(v.strike())
	if open {
		v.open++
	}

	time.Sleep(leaseAndQuiet) // no clock of the peers or the function can be wound
	for range 3 {             // I14: at most three sweeps to rest
		v.sweep()
		v.deliver()
	}
	end := cmp.Or(v.force("peer/acme").outcome("peer/acme"), "not found")
	switch {
	case end == "needs_consent" && open && v.grace == 0:
		v.connected = false // a person connects it again
		return where + ": needs_consent (W1, W2)"
	case end != "rotated":
		v.t.Errorf("killed %s, seed %d: afterwards a rotation answers %s; the last answers:\n%s", where, *seed, end,
			v.answers.tail(1500))
		v.connected = false
		return where + ": " + end
	}
	d := v.read("peer/acme")
	if status := v.use(d); status != http.StatusOK || d.Epoch == first.Epoch && d.Generation <= first.Generation {
		v.t.Errorf("killed %s, seed %d: afterwards generation %d is current and /me answers %d", where, *seed, d.Generation,
			status)
	}
	return where + ": recovered"
}

// strike kills rotations of cold starts until one was not done before, and
// returns the calls it has made.
func (v *victim) strike() (calls []call) {
	if v.ordinary == 0 {
		v.rotate.Kill()
		began := time.Now()
		v.force("peer/acme")
		v.ordinary = time.Since(began)
	}
	for v.t.Context().Err() == nil {
		v.rotate.Kill()
		_, mark := v.tap.since(0)
		after := time.Duration(v.random.Int64N(int64(v.ordinary)))
		began, timer := time.Now(), time.AfterFunc(after, v.rotate.Kill)
		ctx, cancel := context.WithTimeout(v.t.Context(), time.Minute)
		_, err := v.rotate.Invoke(ctx, []byte(`{"op":"rotate","connection":"peer/acme"}`))
		cancel()
		if timer.Stop(); err != nil {
			calls, _ = v.tap.since(mark)
			v.ordinary += v.ordinary / 10 // or it may be longer
			break
		}
		v.ordinary = time.Since(began) // or most would be done before, and a secret takes 99 versions a day
	}
	return calls
}

// whereKilled says how far the calls of a killed rotation went, and whether the
// provider may have committed without a saved copy of its answer.
func whereKilled(calls []call) (where string, open bool) {
	where = "before the first call"
	for _, c := range calls {
		saved := c.Reached && c.Status == http.StatusOK && (c.Name == "PutItem" || c.Name == "PutSecretValue")
		switch {
		case c.Name == "POST /oauth/token": // which may have arrived even if the tap has no answer to it
			where, open = "between the POST and the first copy", true
		case open && saved:
			where, open = "after the first copy", false
		case !open && where != "after the first copy":
			where = "before the POST"
		}
	}
	return where, open
}

// presentedOnceUnlessLost: only a rotation with an unknown end may have cost a
// second presentation.
func (v *victim) presentedOnceUnlessLost() {
	again := 0
	for _, times := range v.tap.presentations() {
		again += times - 1
	}
	if again > v.open {
		v.t.Errorf("%d presentations were repeated, and %d rotations had an open end (seed %d)", again, v.open, *seed)
	}
}
