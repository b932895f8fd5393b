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
		// Doorkeeper's clock cannot be wound.
		time.Sleep(time.Until(in.due(in.read(fmt.Sprintf("peer/c%d", connections-1)))))
		_, mark := in.tap.since(0)
		if r := in.sweep(); r.Outcomes["rotated"] != connections {
			t.Fatalf("the sweep answers %v, want %d rotated", r.Outcomes, connections)
		}
		calls, _ := in.tap.since(mark)
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
	in.presentedOnce(3*connections, 2*connections)
}
