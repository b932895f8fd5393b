package rotation_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// faultCounts counts which faults were injected at which boundaries of which calls, and on
// how many servers.
type faultCounts struct {
	mu        sync.Mutex
	seen      map[faultAt]map[string]bool // on which servers
	scenarios map[string]int              // of a server
	server    string
	all       *faultCounts
}

type faultAt struct {
	call string
	when rotationtest.Moment
	kind rotationtest.Kind
}

// on counts for one scenario on one server.
func (s *faultCounts) on(server string) *faultCounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.scenarios == nil {
		s.scenarios, s.seen = map[string]int{}, map[faultAt]map[string]bool{}
	}
	s.scenarios[server]++
	return &faultCounts{server: server, all: s}
}

// count is a gate that counts what g does.
func (s *faultCounts) count(g rotationtest.Gate) rotationtest.Gate {
	if s == nil {
		return g
	}
	return func(ctx context.Context, at rotationtest.Passage) rotationtest.Fault {
		fault := g(ctx, at)
		if fault.Kind != rotationtest.Continue {
			s.all.add(faultAt{at.Call, at.When, fault.Kind}, s.server)
		}
		return fault
	}
}

func (s *faultCounts) add(what faultAt, server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[what] == nil {
		s.seen[what] = map[string]bool{}
	}
	s.seen[what][server] = true
}

// kinds are the columns of the table; done is an effect that is reported as failed.
var kinds = []struct {
	name string
	when rotationtest.Moment
	kind rotationtest.Kind
}{
	{"error", rotationtest.Before, rotationtest.Fail}, {"done, error", rotationtest.After, rotationtest.Fail},
	{"crash", rotationtest.Before, rotationtest.Crash}, {"done, crash", rotationtest.After, rotationtest.Crash},
	{"throttle", rotationtest.Before, rotationtest.Throttle}, {"deny", rotationtest.Before, rotationtest.Deny},
	{"freeze", rotationtest.Before, rotationtest.Freeze}, {"done, freeze", rotationtest.After, rotationtest.Freeze},
	{"slow", rotationtest.Before, rotationtest.Slow},
	{"late", rotationtest.Before, rotationtest.Late}, {"stale", rotationtest.Before, rotationtest.Stale},
	{"unsent", rotationtest.Before, rotationtest.Unsent}, {"cut", rotationtest.After, rotationtest.Cut},
	{"cancel", rotationtest.Before, rotationtest.Cancel},
}

func (s *faultCounts) calls() []string {
	calls := map[string]bool{}
	for what := range s.seen {
		calls[what.call] = true
	}
	return slices.Sorted(maps.Keys(calls))
}

// String is a table: on how many servers a fault was tried at a call. A dot
// stands for a fault that the call cannot have: only writes are late, only reads
// are stale, only the POST is cut off.
func (s *faultCounts) String() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "every single fault, on so many servers\t")
	for _, k := range kinds {
		fmt.Fprint(w, k.name, "\t")
	}
	fmt.Fprintln(w)
	combinations := 0
	for _, call := range s.calls() {
		fmt.Fprint(w, call, "\t")
		for _, k := range kinds {
			n := len(s.seen[faultAt{call, k.when, k.kind}])
			combinations += n
			fmt.Fprint(w, strings.ReplaceAll(fmt.Sprint(n), "0", "."), "\t")
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	fmt.Fprintf(&text, "%d calls, %d kinds of faults, %d combinations with servers", len(s.calls()), len(kinds),
		combinations)
	return text.String()
}

// lacks names the calls of a rotation that did not meet every kind of fault that
// the menu has for them on every server. It wants more than one scenario of each.
func (s *faultCounts) lacks() (lacks []string) {
	servers := len(rotationtest.Personalities)
	for server := range rotationtest.Personalities {
		if s.scenarios[server] < 2 {
			return nil
		}
	}
	for _, call := range callsOfARotation {
		for _, when := range []rotationtest.Moment{rotationtest.Before, rotationtest.After} {
			for _, fault := range rotationtest.AnyFault(rotationtest.Passage{Call: call, When: when}) {
				if n := len(s.seen[faultAt{call, when, fault.Kind}]); n != servers {
					lacks = append(lacks, fmt.Sprintf("%s %s %s was tried on %d servers of %d", fault.Kind, when, call, n, servers))
				}
			}
		}
	}
	return lacks
}

// callsOfARotation are the calls that every rotation makes on every server.
var callsOfARotation = []string{"applications.Application", "followups.Send", "issuer.Redeem", "ledger.Load",
	"ledger.SaveResponse",
	"ledger.Write", "notifier.Notify", "ratelimiter.Reserve", "sealer.DataKey", "sealer.Unwrap", "secrets.Current",
	"secrets.Promote", "secrets.Put"}
