package rotationtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func TestCallsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls Calls
		l := &Ledger{Gate: calls.Gate(nil)}
		load := func(actor string) { _, _, _ = l.Load(WithActor(t.Context(), actor), acme) }
		for range 6 {
			for _, actor := range []string{"a", "b"} {
				load(actor)
				load(actor)
			}
			time.Sleep(10 * time.Second)
		}
		if err := calls.Check(2, 24); err != nil || calls.Most("ledger.Load") != 24 {
			t.Errorf("%v, %d calls", err, calls.Most("ledger.Load"))
		}
		if err := calls.Check(1, 24); err == nil {
			t.Error("two calls at once are taken for one")
		}
		if err := calls.Check(2, 23); err == nil {
			t.Error("24 calls in an hour are taken for 23")
		}
	})
}

// The issuer decides what readers find, not the expiry in the document.
func TestWithoutToken(t *testing.T) {
	_, err := runStory(t, Personality{}, func(s *story) {
		start := time.Now()
		p := s.connect(1)
		time.Sleep(80 * time.Minute)
		s.begin(p)
		next := s.present(p) // ends the one that readers find
		s.save(successor(p, 1, 1))
		time.Sleep(5 * time.Minute)
		s.decide(next, 1, 1)
		s.publish(next, 1, 1)
		time.Sleep(95 * time.Minute)
		for _, c := range []struct{ from, to, want time.Duration }{
			{0, 80 * time.Minute, 0}, {0, 85 * time.Minute, 5 * time.Minute}, {82 * time.Minute, 90 * time.Minute,
				3 * time.Minute},
			{85 * time.Minute, 3 * time.Hour, 10 * time.Minute}, {-time.Minute, time.Minute, time.Minute},
		} {
			if got := s.WithoutToken(acme, start.Add(c.from), start.Add(c.to)); got != c.want {
				t.Errorf("from %v to %v: %v without a token, want %v", c.from, c.to, got, c.want)
			}
		}
		if got := s.LiveUntil(acme).Sub(start); got != 170*time.Minute {
			t.Errorf("alive until %v", got)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotInOrderAfterARepair(t *testing.T) {
	for name, test := range map[string]struct {
		steps func(*story)
		want  string
	}{
		"all is well":         {func(s *story) { s.rotate(s.connect(1), 1, 1) }, ""},
		"an attempt is left":  {func(s *story) { s.begin(s.connect(1)) }, "an attempt is left"},
		"the token has ended": {func(s *story) { s.connect(1); time.Sleep(2 * time.Hour) }, "no live token"},
		"nothing is published": {func(s *story) {
			s.exchange()
			s.change(func(r *rotation.Record) { r.Status, r.Epoch = rotation.Active, 1 })
		}, "no live token"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(WithActor(t.Context(), "story"), 48*time.Hour)
				defer cancel()
				s := &story{NewHarness(nil, Personality{}), ctx}
				test.steps(s)
				got := fmt.Sprint(CheckRepaired(s.Harness))
				if strings.Contains(got, "I19 is broken") != (test.want != "") || !strings.Contains(got, test.want) {
					t.Errorf("got %s, want %q", got, test.want)
				}
			})
		})
	}
}
