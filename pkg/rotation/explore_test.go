package rotation_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// scenes are what the explorer plays. Each is small enough to try every list
// with one fault and one switch.
var scenes = []struct {
	name string
	scene
}{
	{"a rotator", scene{actors: []actor{rotator("rotator")}}},
	{"a rotator and its recovery", scene{actors: []actor{rotator("rotator")}, recovery: true}},
	{"two rotators", scene{actors: []actor{rotator("rotator 1"), rotator("rotator 2")}}},
	{"a rotator and a later sweep", scene{actors: []actor{rotator("rotator"), latecomer}}},
	{"a rotator and an impatient one", scene{actors: []actor{rotator("rotator"), impatient}}},
	{"a rotator and a published consent", scene{actors: []actor{rotator("rotator"), renewer}}},
	{"a rotator and a sweep", scene{actors: []actor{rotator("rotator"), sweeper}}},
	{"a rotator and a consent", scene{actors: []actor{rotator("rotator"), consenter}}},
	{"a rotator and an import", scene{actors: []actor{rotator("rotator"), importer}}},
	{"a rotator and a disconnect", scene{actors: []actor{rotator("rotator"), disconnecter}}},
	{"a rotator and a withdrawal", scene{actors: []actor{rotator("rotator"), withdrawer}}},
	{"a rotator and a hand edit", scene{actors: []actor{rotator("rotator"), editor}}},
	{"a rotator and a roll back", scene{before: rotateOnce, actors: []actor{rotator("rotator"), rollbacker}}},
	{"a rotator and a deleted secret", scene{actors: []actor{rotator("rotator"), deleter}}},
	{"a rotator and a purged secret", scene{actors: []actor{rotator("rotator"), purger}}},
	{"a first consent and a sweep", scene{pending: true, actors: []actor{renewer, sweeper}}},
	{"two first consents", scene{pending: true, actors: []actor{callback("callback 1"), callback("callback 2")}}},
	{"a held answer is released", scene{before: hold, actors: []actor{releaser, sweeper}}},
	{"a held answer is discarded", scene{before: hold, actors: []actor{discarder, consenter}}},
	{"a courier and a sweep of 15-minute tokens", scene{lifetime: 15 * time.Minute, age: 880 * time.Second, actors: []actor{courier, sweeper}}},
	{"a rotator and a reader", scene{actors: []actor{rotator("rotator"), reader}}},
	{"a hasty run and a sweep", scene{actors: []actor{hasty, sweeper}}},
	{"a rotator and a stranger", scene{actors: []actor{rotator("rotator"), stranger}}},
	{"a rotator and another client secret", scene{actors: []actor{rotator("rotator"), portal}}},
	{"a restored table", scene{before: restore, actors: []actor{rotator("rotator"), sweeper}}},
	{"a consent where one is needed", scene{before: lose, actors: []actor{renewer, sweeper}}},
	{"an import after a disconnect", scene{before: leave, actors: []actor{importer, sweeper}}},
	{"two callbacks", scene{actors: []actor{callback("callback 1"), callback("callback 2")}}},
	{"a consent and a disconnect", scene{actors: []actor{consenter, disconnecter}}},
	{"a consent and a publisher", scene{actors: []actor{consenter, publisher}}},
	{"a disconnect of an expired pair", scene{age: 100 * time.Minute, actors: []actor{disconnecter}}},
	{"a sweep of 15-minute tokens", scene{lifetime: 15 * time.Minute, age: 874 * time.Second, actors: []actor{sweeper}}},
	{"a service account's rotator and a sweep", scene{service: true, actors: []actor{rotator("rotator"), sweeper}}},
	{"a service account and its disconnect", scene{service: true, actors: []actor{rotator("rotator"), disconnecter}}},
	{"a rotator, a consent and a disconnect", scene{actors: []actor{rotator("rotator"), consenter, disconnecter}}},
}

func rotateOnce(b *bench) {
	_, _ = b.rotator().Rotate(context.Background(), acme)
	time.Sleep(time.Hour)
}

// restore puts the table back to where it was two generations ago.
func restore(b *bench) {
	back := b.Ledger.Backup()
	rotateOnce(b)
	rotateOnce(b)
	back()
}

// lose takes the consent back, and lets that be noticed.
func lose(b *bench) {
	withdrawer.act(context.Background(), b)
	rotateOnce(b)
}

// leave disconnects.
func leave(b *bench) {
	_, _ = b.rotator().Disconnect(context.Background(), acme)
	time.Sleep(time.Hour)
	_, _ = b.rotator().Sweep(context.Background())
}

// hold gets an answer with two refresh tokens in it, which waits for a person.
func hold(b *bench) {
	two := &contradicting{Issuer: b.Issuer}
	_, _ = b.rotatorWith(two).Rotate(context.Background(), acme)
	b.right = two.right
	time.Sleep(10 * time.Minute)
}

// play is how much of a scene to try.
type play struct {
	faults, switches int
	rotationtest.Exploration
}

func (p play) String() string {
	return fmt.Sprintf("%d faults, %d switches, seed %d", p.faults, p.switches, p.Seed)
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
	started := time.Now()
	t.Run("on a server that", func(t *testing.T) {
		for name, server := range rotationtest.Personalities {
			for _, s := range scenes {
				t.Run(name+"/"+s.name, func(t *testing.T) {
					t.Parallel()
					for _, p := range plays(s.name, name) {
						counts := rotationtest.Explore(t, p.Exploration, s.with(server, p.faults, p.switches))
						t.Logf("%v: %v", p, counts)
						runs.Add(int64(counts.Runs))
					}
				})
			}
		}
	})
	t.Logf("%d runs in %v", runs.Load(), time.Since(started).Round(time.Second))
}
