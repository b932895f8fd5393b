package consent_test

import (
	"slices"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// observed records the calls of an Observer.
type observed []string

func (o *observed) Ended(c token.Connection, outcome string) { *o = append(*o, c.String()+" "+outcome) }
func (o *observed) Reused(c token.Connection)                { *o = append(*o, c.String()+" again") }

func TestObserverSeesEndsAndRepeats(t *testing.T) {
	s := newServer(t)
	var o observed
	s.observer = &o
	s.build()
	b := s.browser()
	path, _ := s.invite(rotation.Identity{})
	back := b.allow(path)
	b.do("GET", back)
	b.do("GET", back)                // a reload
	s.browser().do("GET", back)      // a stranger with the address and no cookie
	b.do("GET", "/callback/sandbox") // no answer at all
	if want := (observed{"sandbox/acme connected", "sandbox/acme again"}); !slices.Equal(o, want) {
		t.Errorf("observed %v, want %v", o, want)
	}
}
