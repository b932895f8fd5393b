//go:build conformance

package conformance

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestTwentySweepsAtOnce lets twenty environments of the rotate function find
// the same connection due at the same moment.
func TestTwentySweepsAtOnce(t *testing.T) {
	t.Parallel()
	const sweeps, rounds, lifetime = 20, 3, 50 * time.Second
	in := install(t, startCloud(t), startProvider(t, 0, lifetime), "crowd", patient)
	in.connect("peer/acme")
	for range 5 { // warms twenty environments; nothing is due, and one may be free again before the last is needed
		if in.atOnce(sweeps); in.rotate.ColdStarts() >= sweeps {
			break
		}
	}
	if got := in.rotate.ColdStarts(); got < sweeps {
		t.Fatalf("%d environments, want %d", got, sweeps)
	}
	total := map[string]int{}
	for round := range rounds {
		before := in.read("peer/acme")
		time.Sleep(time.Until(in.due(before))) // Doorkeeper's clock cannot be wound
		_, mark := in.tap.since(0)
		outcomes := in.atOnce(sweeps)
		redeems := 0
		calls, _ := in.tap.since(mark)
		for _, c := range calls {
			if c.Name == "POST /oauth/token" {
				redeems++
			}
		}
		if redeems != 1 || outcomes["rotated"] != 1 {
			t.Errorf("round %d: %d redeems and outcomes %v, want one redeem and one rotated", round, redeems, outcomes)
		}
		for outcome, n := range outcomes {
			switch outcome {
			case "rotated", "busy", "fresh", outOfTime:
			default:
				t.Errorf("round %d: %d sweeps answer %s, want only rotated, busy, fresh and %s; the last answers:\n%s",
					round, n, outcome, outOfTime, in.answers.tail(8000))
			}
			total[outcome] += n
		}
		if after := in.works("peer/acme"); after.Generation != before.Generation+1 {
			t.Errorf("round %d: generation %d after %d", round, after.Generation, before.Generation)
		}
	}
	in.presentedOnce(1+rounds, rounds)
	t.Logf("%d rounds of %d sweeps at once: %v; %s", rounds, sweeps, total, in.keepsSecrets())
}

// outOfTime is the outcome of a sweep that gave up on a store that did not answer in
// seconds. A machine with twenty processes at once may be that slow.
const outOfTime = "out of time"

// atOnce sweeps n times side by side and counts the outcomes. A sweep that
// found nothing due, because another was done already, counts as fresh.
func (in *installation) atOnce(n int) map[string]int {
	in.t.Helper()
	outcomes := make([]map[string]int, n)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			r := in.sweep()
			outcomes[i] = r.Outcomes
			switch {
			case r.Due == 0:
				outcomes[i] = map[string]int{"fresh": 1}
			case r.Outcomes["failed"] == 1 && len(r.Connections) == 1 &&
				strings.Contains(r.Connections[0].Detail, "context deadline exceeded"):
				outcomes[i] = map[string]int{outOfTime: 1}
			}
		})
	}
	close(start)
	wg.Wait()
	total := map[string]int{}
	for _, each := range outcomes {
		for outcome := range maps.Keys(each) {
			total[outcome] += each[outcome]
		}
	}
	return total
}
