package rotation_test

import (
	"context"
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
	{"a rotator and a sweep", scene{actors: []actor{rotator("rotator"), sweeper}}},
	{"a rotator and a consent", scene{actors: []actor{rotator("rotator"), consenter}}},
	{"a rotator and an import", scene{actors: []actor{rotator("rotator"), importer}}},
	{"a rotator and a disconnect", scene{actors: []actor{rotator("rotator"), disconnecter}}},
	{"a rotator and a withdrawal", scene{actors: []actor{rotator("rotator"), withdrawer}}},
	{"a rotator and a hand edit", scene{actors: []actor{rotator("rotator"), editor}}},
	{"a rotator and a roll back", scene{before: rotateOnce, actors: []actor{rotator("rotator"), rollbacker}}},
	{"a rotator and a deleted secret", scene{actors: []actor{rotator("rotator"), deleter}}},
	{"a rotator and a purged secret", scene{actors: []actor{rotator("rotator"), purger}}},
	{"two callbacks", scene{actors: []actor{callback("callback 1"), callback("callback 2")}}},
	{"a consent and a disconnect", scene{actors: []actor{consenter, disconnecter}}},
	{"a consent and a publisher", scene{actors: []actor{consenter, publisher}}},
	{"a disconnect of an expired pair", scene{age: 100 * time.Minute, actors: []actor{disconnecter}}},
	{"a sweep of 15-minute tokens", scene{lifetime: 15 * time.Minute, age: 865 * time.Second, actors: []actor{sweeper}}},
	{"a rotator, a consent and a disconnect", scene{actors: []actor{rotator("rotator"), consenter, disconnecter}}},
}

func rotateOnce(b *bench) {
	_, _ = b.rotator().Rotate(context.Background(), acme)
	time.Sleep(time.Hour)
}

func TestEveryFaultIsSurvived(t *testing.T) {
	for name, server := range rotationtest.Personalities {
		t.Run(name, func(t *testing.T) {
			for _, s := range scenes {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					started := time.Now()
					counts, found := rotationtest.Search(t, rotationtest.Exploration{}, s.with(server, 1, 0))
					t.Log(counts, time.Since(started))
					if found != nil {
						t.Error(found)
					}
				})
			}
		})
	}
}
