//go:build conformance

package conformance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCallsOfARotation counts the calls to AWS of one sweep with many due connections.
// infra/SCALE.md has the list, with the reason for each call.
func TestCallsOfARotation(t *testing.T) {
	t.Parallel()
	const connections, most = 20, 10
	in := install(t, startCloud(t), startProvider(t, 0, 30*time.Second), "calls", patient)
	for i := range connections {
		in.connect(fmt.Sprintf("peer/c%d", i))
	}
	in.deliver()
	for _, after := range []string{"consents", "a sweep"} {
		calls := in.sweepOfAll(connections)
		byName, total := map[string]int{}, 0
		for _, c := range calls {
			if c.Peer == "aws" {
				byName[c.Name]++
				total++
			}
		}
		var each []string
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			each = append(each, fmt.Sprintf("%.2f %s", float64(byName[name])/connections, name))
		}
		t.Logf("after %s: %.2f calls a rotation, %d in one sweep: %s", after, float64(total)/connections, connections,
			strings.Join(each, ", "))
		if total > most*connections {
			t.Errorf("after %s: %d calls for %d rotations, want at most %d each", after, total, connections, most)
		}
	}
}

// sweepOfAll returns the calls of a sweep that rotated all connections. On a busy machine
// Doorkeeper may be too slow for one of them; what the sweep leaves is then worked off first.
func (in *installation) sweepOfAll(connections int) []call {
	in.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); {
		for i := range connections { // Doorkeeper's clock cannot be wound
			time.Sleep(time.Until(in.due(in.read(fmt.Sprintf("peer/c%d", i)))))
		}
		_, mark := in.tap.since(0)
		r := in.sweep()
		calls, _ := in.tap.since(mark)
		if r.Outcomes["rotated"] == connections {
			return calls
		}
		in.t.Logf("a sweep answers %v; the next one tries again", r.Outcomes)
	}
	in.t.Fatal("no sweep rotated all connections")
	return nil
}
