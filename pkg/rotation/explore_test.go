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

// lastingly is a number of random runs of trouble that lasts. It has only a few choices,
// and takes each option equally often.
func lastingly(n int, seed uint64) rotationtest.Exploration {
	return rotationtest.Exploration{Runs: 1, Random: n, Seed: seed, Rate: 0.8}
}

// some is a number of random runs. Each takes about three options that are not the first.
func some(n int, seed uint64) rotationtest.Exploration {
	return rotationtest.Exploration{Runs: 1, Random: n, Seed: seed, Rate: 0.05}
}

func TestEveryFaultIsSurvived(t *testing.T) {
	var runs atomic.Int64
	var single faultCounts
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
				counts, found := rotationtest.Search(t, x.Exploration, x.world(x.server, x.play, &single))
				if found != nil {
					line, _ := json.Marshal(failing{x.server, x.name, x.play.faults, x.play.switches, found.List})
					t.Fatalf("after %v it fails. Add this line to %s, to try it at every run from now on:\n%s\n%v", counts, keptLists,
						line, found)
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
			world, known := worlds()[f.Scenario]
			if _, server := rotationtest.Personalities[f.Server]; !known || !server {
				t.Fatalf("there is no such scenario or server: %s", line)
			}
			rotationtest.Replay(t, world(f.Server, play{faults: f.Faults, switches: f.Switches}, &faultCounts{}), f.Choices...)
		})
	}
}

// performance is a scenario on a server and how much of it to try.
type performance struct {
	name, server string
	world        worldOn
	play
	weight int // greater where more is to be tried
}

// worldOn makes the world of a scenario on a server. It counts the faults if every single
// one is tried.
type worldOn func(server string, p play, single *faultCounts) rotationtest.World

func (s scenario) on(server string, p play, single *faultCounts) rotationtest.World {
	s.server = rotationtest.Personalities[server]
	if p.faults == 1 && p.switches == 0 && p.Exploration == all {
		s.seen = single.on(server)
	}
	return s.with(p.faults, p.switches)
}

func (l lasting) on(server string, p play, _ *faultCounts) rotationtest.World {
	l.server = rotationtest.Personalities[server]
	return l.with(p.faults, p.switches)
}

// worlds are all scenarios, those of trouble that lasts among them, by their names.
func worlds() map[string]worldOn {
	worlds := map[string]worldOn{}
	for _, s := range scenarios {
		worlds[s.name] = s.on
	}
	for _, l := range lastings {
		worlds[l.name] = l.on
	}
	return worlds
}

// program is everything to try, the longest first, so that no processor is idle
// at the end; with -short, a tenth of it.
func program() []performance {
	var todo []performance
	for _, server := range slices.Sorted(maps.Keys(rotationtest.Personalities)) {
		for _, s := range scenarios {
			s.server = rotationtest.Personalities[server]
			for _, p := range plays(s.name, s.scenario) {
				if s.name == "a server that rambles" && p.faults > 1 {
					continue // what two faults do to a consent that nobody can check is not judged yet
				}
				weight := 0
				if p.Exploration == all {
					weight = p.faults * p.faults * len(s.actors)
				}
				todo = append(todo, performance{s.name, server, s.on, p, weight})
			}
		}
		if rotationtest.Personalities[server].NoRotation {
			continue // a server that gives no new refresh token cannot be served at all
		}
		for _, l := range lastings {
			for _, p := range lastingPlays(rotationtest.Personalities[server] == rotationtest.Personality{}) {
				todo = append(todo, performance{l.name, server, l.on, p, 5})
			}
		}
	}
	slices.SortStableFunc(todo, func(a, b performance) int {
		return cmp.Compare(b.weight, a.weight)
	})
	if testing.Short() {
		every := todo
		todo = nil
		for i := 5; i < len(every); i += 10 {
			todo = append(todo, every[i])
		}
	}
	return todo
}
