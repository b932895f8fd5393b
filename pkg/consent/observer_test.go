package consent_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// observed records the calls of an Observer.
type observed []string

func (o *observed) Ended(c token.Connection, outcome string) { *o = append(*o, c.String()+" "+outcome) }
func (o *observed) Reused(c token.Connection)                { *o = append(*o, c.String()+" again") }
func (o *observed) HostRefused()                             { *o = append(*o, "host refused") }

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

// A proxy that replaces the Host header shows in the log and in a count, on every page that people visit. Health checks
// of load balancers, which use another name, are no such case; nor are pages that do not exist.
func TestRefusedHostsAreCountedAndLogged(t *testing.T) {
	s := newServer(t)
	var o observed
	s.observer = &o
	s.build()
	b := s.browser()
	path, _ := s.invite(rotation.Identity{})
	proxied := func(path string, status int) {
		t.Helper()
		answer := b.do("GET", path, func(r *http.Request) { r.Host = "abc.execute-api.example" + strings.Repeat("x", 200) })
		if answer.StatusCode != status {
			t.Errorf("%s answers %d", path, answer.StatusCode)
		}
	}
	proxied(path, 400)
	proxied("/connected", 400)
	proxied("/healthz", 200)
	proxied("/favicon.ico", 404)
	if want := (observed{"host refused", "host refused"}); !slices.Equal(o, want) {
		t.Errorf("observed %v, want %v", o, want)
	}
	log := s.log.String()
	if n := strings.Count(log, "level=WARN"); n != 2 || !strings.Contains(log, "abc.execute-api.example") ||
		strings.Contains(log, strings.Repeat("x", 101)) {
		t.Errorf("%d warnings:\n%s", n, log)
	}
}
