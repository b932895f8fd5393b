package rotation_test

import (
	"context"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// Access tokens that live for minutes, and a secret store that takes only so many
// versions in a day.

var shortScenarios = []namedScenario{
	{"a queue consumer and a sweep of 15-minute tokens", scenario{rare: true, lifetime: 15 * time.Minute,
		age:    880 * time.Second,
		actors: []actor{queueConsumer, sweeper}}},
	{"a sweep of 15-minute tokens", scenario{rare: true, lifetime: 15 * time.Minute, age: 874 * time.Second,
		actors: []actor{sweeper}}},
	{"a queue consumer and a sweep after a day of 15-minute tokens", scenario{rare: true, lifetime: 15 * time.Minute,
		age: 880 * time.Second, before: filled(98), actors: []actor{queueConsumer, sweeper}}},
	{"a day of 15-minute tokens has no room for a reader", scenario{rare: true, lifetime: 15 * time.Minute,
		age: 5 * time.Minute, before: filled(98), actors: []actor{demandingReader, queueConsumer}}},
	{"a day of 20-minute tokens has room for a reader", scenario{rare: true, lifetime: 20 * time.Minute,
		age: 12 * time.Minute, before: filled(50), actors: []actor{demandingReader, queueConsumer}}},
	{"a sweep of five-minute tokens", scenario{rare: true, lifetime: 5 * time.Minute, age: 6 * time.Minute,
		actors: []actor{sweeper}}},
	{"a put budget that is used up", scenario{rare: true, before: save, actors: []actor{rotator("rotator"), sweeper}}},
}

// filled gives the secret as many versions in the last day, as far apart.
func filled(puts int) func(*harness) {
	return func(b *harness) {
		b.rewrite(func(r *rotation.Record) rotation.Change {
			every := time.Until(r.Current.SavedAt.Add(24*time.Hour-time.Minute)) / time.Duration(puts-1)
			r.Puts = nil
			for n := range puts {
				r.Puts = append(r.Puts, r.Current.SavedAt.Add(-time.Duration(puts-1-n)*every).Unix())
			}
			return rotation.Change{}
		})
	}
}

// save leaves one put a day.
func save(b *harness) { b.settings.PutsPerDay = 1 }

// demandingReader wants ten minutes and a little more.
var demandingReader = actor{"reader", func(ctx context.Context, b *harness) {
	_, _ = b.rotator().Do(ctx, rotation.Request{Op: "ensure", Connection: acme.String(), MinTTLSeconds: 660})
}}
