package rotation_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// A month without faults raises no alarm, presents each refresh token once,
// writes three times a rotation, and keeps a token alive at the end of each hour.
func TestAMonthWithoutFaults(t *testing.T) {
	for _, name := range []string{"ends the old pair at once", "overlaps until the first use"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personalities[name])
				b.connect(t)
				const hours = 30 * 24
				writes := b.writes()
				for range hours {
					time.Sleep(time.Hour)
					if doc, err := b.read(t.Context()); err != nil || !b.Issuer.Accepts(t.Context(), doc.AccessToken) {
						t.Fatalf("readers have no token: %v", err)
					}
					b.deliver(t.Context())
					b.sweep(t)
				}
				if err := b.works(t.Context()); err != nil {
					t.Error(err)
				}
				if err := errors.Join(rotationtest.CheckAtRest(b.Harness), b.undamaged(t.Context())); err != nil {
					t.Error(err)
				}
				if kinds := b.notices(); len(kinds) != 0 {
					t.Errorf("people were notified of %v", kinds)
				}
				shown := b.presentations()
				for what, n := range shown {
					if n != 1 {
						t.Errorf("refresh token %s was presented %d times", what, n)
					}
				}
				if n := b.writes() - writes; len(shown) != hours || n != 3*hours {
					t.Errorf("%d rotations and %d writes, want %d and three times as many", len(shown), n, hours)
				}
			})
		})
	}
}

// A connection with stores that hang delays no other one: they are done in
// seconds, and it ends with the deadlines of its calls.
func TestABadConnectionDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		names := connectMany(t, b, 5)
		time.Sleep(time.Hour)
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.Connection == names[2] && at.When == rotationtest.Before {
				return rotationtest.Fault{Kind: rotationtest.Slow, For: time.Hour}
			}
			return rotationtest.Fault{}
		})
		started := time.Now()
		report := b.sweep(t)
		if report.Outcomes[rotation.Rotated] != 4 || report.Outcomes[rotation.Failed] != 1 {
			t.Errorf("outcomes %v", report.Outcomes)
		}
		if took := time.Since(started); took > time.Minute {
			t.Errorf("the sweep took %v", took)
		}
		for _, e := range b.Journal.Entries() {
			if wait := e.At.Sub(started); e.Connection != names[2] && !e.Connection.IsZero() && wait > time.Second {
				t.Errorf("%s had to wait for %v", e.Connection, wait)
			}
		}
		time.Sleep(2 * time.Hour) // what hangs has ended
	})
}

// writes counts the changes of rows.
func (b *harness) writes() (n int) {
	for _, e := range b.Journal.Entries() {
		if _, ok := e.Effect.(rotationtest.Wrote); ok {
			n++
		}
	}
	return n
}
