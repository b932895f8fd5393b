package rotation_test

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// play is how much of a scenario to try.
type play struct {
	faults, switches int
	rotationtest.Exploration
}

func (p play) String() string {
	if p.Exploration == all {
		return fmt.Sprintf("all with %d faults and %d switches", p.faults, p.switches)
	}
	return fmt.Sprintf("%d with %d faults and %d switches, seed %d", p.Random, p.faults, p.switches, p.Seed)
}

// all is every list of choices.
var all = rotationtest.Exploration{}

// some is a number of random runs, each of which leaves the ordinary way about
// three times.
func some(n int, seed uint64) rotationtest.Exploration {
	return rotationtest.Exploration{Runs: 1, Random: n, Seed: seed, Rate: 0.05}
}

func TestEveryFaultIsSurvived(t *testing.T) {
	var runs atomic.Int64
	var single strikes
	started := time.Now()
	failFast := flag.Lookup("test.failfast").Value.String() == "true"
	t.Run("on a server that", func(t *testing.T) {
		group := t
		for _, x := range program() {
			t.Run(fmt.Sprintf("%s/%s/%v", x.server, x.name, x.play), func(t *testing.T) {
				t.Parallel()
				if failFast && group.Failed() { // by now all have begun, so package testing stops none
					return
				}
				s := x.scenario
				if x.play.faults == 1 && x.Exploration == all {
					s.seen = single.on(x.server)
				}
				counts, found := rotationtest.Search(t, x.Exploration, s.with(x.play.faults, x.play.switches))
				if found != nil {
					line, _ := json.Marshal(failing{x.server, x.name, x.play.faults, x.play.switches, found.List})
					t.Fatalf("after %v it fails. Add this line to %s, to try it at every run from now on:\n%s\n%v", counts, keptLists, line, found)
				}
				t.Log(counts)
				runs.Add(int64(counts.Runs))
			})
		}
	})
	t.Logf("%d runs in %v\n%v", runs.Load(), time.Since(started).Round(time.Second), &single)
	for _, lack := range single.lacks() {
		t.Errorf("of the faults tried one by one: %s", lack)
	}
}

// failing is a list of choices with which an engine has failed.
type failing struct {
	Server   string `json:"server"`
	Scenario string `json:"scenario"`
	Faults   int    `json:"faults"`
	Switches int    `json:"switches"`
	Choices  []int  `json:"choices"`
}

// keptLists has one failing list a line.
const keptLists = "testdata/lists.jsonl"

func TestListsThatFailedOnce(t *testing.T) {
	text, err := os.ReadFile(keptLists)
	must(t, err)
	for line := range strings.Lines(string(text)) {
		var f failing
		must(t, json.Unmarshal([]byte(line), &f))
		t.Run(f.Server+"/"+f.Scenario, func(t *testing.T) {
			i := slices.IndexFunc(scenarios, func(s namedScenario) bool { return s.name == f.Scenario })
			server, known := rotationtest.Personalities[f.Server]
			if i < 0 || !known {
				t.Fatalf("there is no such scenario or server: %s", line)
			}
			s := scenarios[i].scenario
			s.server = server
			rotationtest.Replay(t, s.with(f.Faults, f.Switches), f.Choices...)
		})
	}
}

// performance is a scenario on a server and how much of it to try.
type performance struct {
	name, server string
	scenario
	play
}

// program is everything to try, the longest first, lest a processor be idle at
// the end.
func program() []performance {
	var todo []performance
	for _, server := range slices.Sorted(maps.Keys(rotationtest.Personalities)) {
		for _, s := range scenarios {
			s.server = rotationtest.Personalities[server]
			for _, p := range plays(s.name, s.scenario) {
				todo = append(todo, performance{s.name, server, s.scenario, p})
			}
		}
	}
	slices.SortStableFunc(todo, func(a, b performance) int {
		return cmp.Compare(b.weight(), a.weight())
	})
	return todo
}

// weight is greater where more is to be tried.
func (x performance) weight() int {
	if x.Exploration != all {
		return 0
	}
	return x.play.faults * x.play.faults * len(x.actors)
}
