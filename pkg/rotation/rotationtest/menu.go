package rotationtest

import (
	"slices"
	"time"
)

// The durations of the faults that AnyFault offers, for the settings of a Harness:
// a slow request outlasts the redeem timeout, a late one arrives before lease
// and quiet period are over (after which, by the protocol's assumption, none
// can), and a freeze outlasts everything.
const (
	slowFor   = 45 * time.Second
	lateFor   = 100 * time.Second
	freezeFor = 10 * time.Minute
)

// AnyFault is a Driver.Menu with everything that can go wrong at a passage.
func AnyFault(at Passage) []Fault {
	if at.When == After {
		if at.Call == "issuer.Redeem" {
			return []Fault{{Kind: Fail}, {Kind: Crash}, {Kind: Cut}}
		}
		if at.Call == "ledger.Load" { // and acts on what it read long ago
			return []Fault{{Kind: Fail}, {Kind: Crash}, {Kind: Freeze, For: freezeFor}}
		}
		return []Fault{{Kind: Fail}, {Kind: Crash}}
	}
	faults := []Fault{{Kind: Fail}, {Kind: Crash}, {Kind: Throttle}, {Kind: Deny}, {Kind: Freeze, For: freezeFor}}
	if slices.Contains(lateCalls, at.Call) {
		faults = append(faults, Fault{Kind: Slow, For: slowFor}, Fault{Kind: Late, For: lateFor})
	}
	if slices.Contains(staleCalls, at.Call) {
		faults = append(faults, Fault{Kind: Stale})
	}
	if at.Call == "issuer.Redeem" {
		faults = append(faults, Fault{Kind: Unsent})
	}
	return faults
}

// lateCalls change something, so that it matters when they arrive.
var lateCalls = []string{"ledger.Write", "ledger.SaveResponse", "secrets.Create", "secrets.Put", "secrets.Promote",
	"issuer.Redeem", "issuer.Revoke"}

// staleCalls are the reads that may answer with an older state.
var staleCalls = []string{"ledger.Due", "secrets.Current", "secrets.Version", "secrets.Versions"}
