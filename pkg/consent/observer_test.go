package consent_test

import (
	"slices"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// told keeps what an Observer is told.
type told []string

func (o *told) Ended(c token.Connection, outcome string) { *o = append(*o, c.String()+" "+outcome) }
func (o *told) Reused(c token.Connection)                { *o = append(*o, c.String()+" again") }

func TestObserverIsToldOfEndsAndRepeats(t *testing.T) {
	d := newDoor(t)
	var o told
	d.observer = &o
	d.build()
	b := d.browser()
	path, _ := d.invite(rotation.Identity{})
	back := b.allow(path)
	b.do("GET", back)
	b.do("GET", back)                // a reload
	d.browser().do("GET", back)      // a stranger with the address and no cookie
	b.do("GET", "/callback/sandbox") // nobody's answer
	if want := (told{"sandbox/acme connected", "sandbox/acme again"}); !slices.Equal(o, want) {
		t.Errorf("told %v, want %v", o, want)
	}
}
