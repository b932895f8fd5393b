package rotationtest

import (
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// The durations of the faults in AnyFault, for the settings of a Harness. A slow request takes
// longer than the redeem timeout. A late one arrives before lease and quiet period are over;
// the protocol assumes that none arrives after that. A freeze is longer than both.
const (
	slowFor   = 45 * time.Second
	lateFor   = 100 * time.Second
	freezeFor = 10 * time.Minute
)

// saveReserve is the time that a run keeps for saving an answer.
const saveReserve = 15 * time.Second

// AnyFault is a Driver.Menu with everything that can go wrong at a passage.
func AnyFault(at Passage) []Fault {
	if at.When == After {
		if at.Call == "issuer.Redeem" {
			return []Fault{{Kind: Fail}, {Kind: Crash}, {Kind: Cut}}
		}
		if at.Call == "ledger.Load" { // a frozen caller then acts on an old read
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
	return append(faults, Fault{Kind: Cancel}) // at the end, because the lists in testdata name faults by number
}

// lateCalls are the calls that change something, so it matters when they arrive.
var lateCalls = []string{"ledger.Write", "ledger.SaveResponse", "secrets.Create", "secrets.Put", "secrets.Promote",
	"issuer.Redeem", "issuer.Revoke"}

// staleCalls are the reads that may return an older state.
var staleCalls = []string{"ledger.Due", "secrets.Current", "secrets.Version", "secrets.Versions"}

// Edges is a Driver.Menu of delays that end just before or just after a time limit of the
// settings: the time of the run, less the time for a POST and for saving; the lease, less the
// time for a POST; the quiet period; the redeem timeout.
func Edges(s rotation.Settings) func(Passage) []Fault {
	var freezes, slow []Fault
	for _, left := range []time.Duration{s.RedeemTimeout + saveReserve, s.RedeemTimeout + timeToSave, s.RedeemTimeout,
		saveReserve, 4 * time.Second} {
		freezes = append(freezes, Fault{Kind: Freeze, Left: left + time.Second},
			Fault{Kind: Freeze, Left: left - time.Second})
	}
	for _, edge := range []time.Duration{s.Lease - s.RedeemTimeout, s.Lease, s.Lease + s.Quiet} {
		freezes = append(freezes, Fault{Kind: Freeze, For: edge - time.Second}, Fault{Kind: Freeze, For: edge + time.Second})
	}
	for _, d := range []time.Duration{-time.Second, 0, time.Second} {
		slow = append(slow, Fault{Kind: Slow, For: s.RedeemTimeout + d})
	}
	return func(at Passage) []Fault {
		if at.Call == "issuer.Redeem" && at.When == Before {
			return slow
		}
		return freezes
	}
}
