package rotation_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// world connects acme, lets rotators loose on it an hour later with faults and
// switches between them, and then, without faults, gives three sweeps the time
// to bring it to rest.
func world(p rotationtest.Personality, faults, switches, rotators int) rotationtest.World {
	return func(c *rotationtest.Choices) error {
		d := &rotationtest.Driver{Choices: c, Menu: rotationtest.AnyFault, Faults: faults, Preemptions: switches}
		b := newGatedBench(d.Gate, p)
		ctx := context.Background() // of no actor: passes every gate
		if result, err := b.consent(ctx, pat, rotation.Identity{Company: "42"}); result != rotation.Connected {
			return fmt.Errorf("consent: %s, %w", result, err)
		}
		b.deliver(ctx)
		time.Sleep(time.Hour)
		for i := range rotators {
			d.Go(fmt.Sprintf("rotator %d", i+1), func(ctx context.Context) { _, _ = b.rotator().Rotate(ctx, acme) })
		}
		if err := d.Run(); err != nil {
			return err
		}
		return b.rest(ctx)
	}
}

// rest gives three sweeps the time to bring everything to rest, and checks it.
func (b *bench) rest(ctx context.Context) error {
	for range 3 {
		time.Sleep(20 * time.Minute)
		b.deliver(ctx)
		if _, err := b.rotator().Sweep(ctx); err != nil {
			return err
		}
	}
	err := rotationtest.CheckAtRest(b.Bench)
	if rec, _, _ := b.Ledger.Load(ctx, acme); err == nil && rec.Status == rotation.Active {
		err = b.works(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.Journal)
	}
	return nil
}

func TestEveryFaultIsSurvived(t *testing.T) {
	for name, personality := range rotationtest.Personalities {
		if personality.NoRotation {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Log("one rotator, one fault: ", rotationtest.Explore(t, rotationtest.Exploration{}, world(personality, 1, 0, 1)))
			t.Log("two rotators, one switch, one fault: ", rotationtest.Explore(t,
				rotationtest.Exploration{Runs: exploredRuns, Random: randomRuns, Seed: 1}, world(personality, 1, 1, 2)))
			t.Log("one rotator, two faults: ", rotationtest.Explore(t,
				rotationtest.Exploration{Runs: exploredRuns, Random: randomRuns, Seed: 1}, world(personality, 2, 0, 1)))
		})
	}
}
