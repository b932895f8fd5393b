//go:build conformance

package conformance

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKilledAtEveryCall ends the rotate function with SIGKILL before and after
// each call that a rotation makes to its peers, one connection for each. Later
// sweeps must bring the connection to rest by themselves, every refresh token
// presented once, unless the kill fell between the provider's commit and the
// first acknowledged copy of its answer (W1 and W2 of the protocol). There a
// provider that grants grace must still recover, the other one needs a person.
func TestKilledAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, grace := range []int{0, 1} {
		t.Run(fmt.Sprintf("GRACE=%d", grace), func(t *testing.T) {
			t.Parallel()
			c, p := startCloud(t), startProvider(t, grace, 10*time.Minute)
			calls := callsOfARotation(t, c, p)
			cases := killCases(calls)
			var mu sync.Mutex
			counts := map[string]int{}
			t.Run("moments", func(t *testing.T) {
				for _, k := range cases {
					t.Run(k.name(), func(t *testing.T) {
						t.Parallel()
						end := k.run(t, c, p, grace)
						mu.Lock()
						counts[end]++
						mu.Unlock()
					})
				}
			})
			var names []string
			for _, c := range calls {
				names = append(names, c.Name)
			}
			t.Logf("GRACE=%d: killed before and after each of the %d calls of a rotation (%s): %v",
				grace, len(calls), strings.Join(names, " "), counts)
		})
	}
}

// callsOfARotation rotates once, undisturbed, and lists the calls. The first
// rotation of an environment, as in every case.
func callsOfARotation(t *testing.T, c *cloud, p *provider) []call {
	t.Helper()
	in := install(t, c, p, "kill-none", quick)
	in.connect("peer/acme")
	in.rotate.Kill()
	_, mark := in.tap.since(0)
	if r := in.force("peer/acme"); r.outcome("peer/acme") != "rotated" {
		t.Fatalf("an undisturbed rotation answers %+v", r)
	}
	calls, _ := in.tap.since(mark)
	return calls
}

type killCase struct {
	at    int // the at-th call
	after bool
	call  call // as it was in the undisturbed rotation
	lossy bool // between the provider's commit and the first saved copy
}

func killCases(calls []call) []killCase {
	redeem := slices.IndexFunc(calls, func(c call) bool { return c.Name == "POST /oauth/token" })
	var cases []killCase
	for i, c := range calls {
		cases = append(cases, killCase{i + 1, false, c, i == redeem+1}, killCase{i + 1, true, c, i == redeem})
	}
	return cases
}

func (k killCase) name() string {
	return fmt.Sprintf("%02d-%s-%s", k.at, map[bool]string{false: "before", true: "after"}[k.after], k.call.Name)
}

// run kills one rotation and says how the connection ended.
func (k killCase) run(t *testing.T, c *cloud, p *provider, grace int) string {
	in := install(t, c, p, fmt.Sprintf("kill-%02d-%t", k.at, k.after), quick)
	in.connect("peer/acme")
	in.rotate.Kill() // a cold start, as in callsOfARotation
	first := in.read("peer/acme")
	disarm := in.tap.arm(k.at, k.after, in.rotate.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := in.rotate.Invoke(ctx, []byte(`{"op":"rotate","connection":"peer/acme"}`))
	hit, seen := disarm()
	if err == nil || hit.Name == "" {
		t.Fatalf("the rotation made %d calls and ended with %v; it was to be killed at call %d", seen, err, k.at)
	}
	if hit.Name != k.call.Name {
		t.Logf("call %d is %s here and was %s", k.at, hit.Name, k.call.Name)
	}

	time.Sleep(leaseAndQuiet) // no clock of the peers or the function can be wound
	for range 3 {             // I14: at most three sweeps to rest
		in.sweep()
		in.deliver()
	}
	end := cmp.Or(in.force("peer/acme").outcome("peer/acme"), "not found")
	switch {
	case end == "needs_consent" && k.lossy && grace == 0:
		return "needs_consent (W1, W2)"
	case end != "rotated":
		t.Errorf("afterwards a rotation answers %s; the last answers:\n%s", end, in.answers.tail(1500))
		return end
	}
	d := in.read("peer/acme")
	if status := in.use(d); status != http.StatusOK || d.Generation <= first.Generation {
		t.Errorf("afterwards generation %d is current and /me answers %d", d.Generation, status)
	}
	for refresh, times := range in.tap.presentations() {
		if times != 1 && !k.lossy {
			t.Errorf("a credential (%d characters) was presented %d times", len(refresh), times)
		}
	}
	in.keepsSecrets()
	return "recovered"
}
