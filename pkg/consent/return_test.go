package consent_test

import (
	"errors"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

var backLink = regexp.MustCompile(`<a class="button" href="([^"]*)">Continue to ([^<]*)</a>`)

// leadsTo returns the address that the page's button leads to; empty: it has none.
func leadsTo(page string) string {
	found := backLink.FindStringSubmatch(page)
	if found == nil {
		return ""
	}
	return html.UnescapeString(found[1])
}

func returning(t *testing.T) *server {
	s := newServer(t)
	s.returnOrigins, s.returnURL = []string{"https://app.example.net"}, "https://app.example.net/done?customer=42"
	s.build()
	return s
}

func wantBack(t *testing.T, page, result string) {
	t.Helper()
	address := leadsTo(page)
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host != "app.example.net" || u.Path != "/done" {
		t.Fatalf("the page leads to %q:\n%s", address, page)
	}
	q := u.Query()
	if q.Get("customer") != "42" || q.Get("connection") != "sandbox/acme" || q.Get("result") != result ||
		q.Get("reference") == "" || len(q) != 4 {
		t.Errorf("the page leads to %s, want the result %s", address, result)
	}
}

func TestASuccessLeadsBackAfterSomeSeconds(t *testing.T) {
	s := returning(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	page := b.wantResult(b.do("GET", b.allow(path)), connectedPage)
	wantBack(t, page, "connected")
	refresh := b.do("GET", "/connected").Header.Get("Refresh")
	if seconds, address, _ := strings.Cut(refresh, "; url="); seconds != "8" || address != leadsTo(page) {
		t.Errorf("Refresh: %s", refresh)
	}
	if strings.Contains(page, "close this window") {
		t.Errorf("the page lets people leave:\n%s", page)
	}
	other := s.browser()
	if page := body(t, other.do("GET", "/connected")); leadsTo(page) != "" {
		t.Errorf("another browser is led to %s", leadsTo(page))
	}
}

func TestOtherResultsLeadBackWithAButton(t *testing.T) {
	for name, c := range map[string]struct {
		heading, result string
		happens         func(*server)
		denies          bool
	}{
		"denied":        {deniedPage, "denied", func(*server) {}, true},
		"wrong account": {wrongAccountPage, "failed", func(s *server) { s.issuer.identity.ClientID = "another" }, false},
		"not checked": {verifyingPage, "pending", func(s *server) { s.issuer.fault = errors.New("out of reach") },
			false},
	} {
		t.Run(name, func(t *testing.T) {
			s := returning(t)
			c.happens(s)
			path, _ := s.invite(rotation.Identity{})
			b := s.browser()
			back := ""
			if c.denies {
				back = callback(url.Values{"error": {"access_denied"}, "state": b.start(path)["state"]})
			} else {
				back = b.allow(path)
			}
			answer := b.do("GET", back)
			address := answer.Header.Get("Location")
			wantBack(t, b.wantResult(answer, c.heading), c.result)
			if b.do("GET", address).Header.Get("Refresh") != "" {
				t.Error("it leads away automatically")
			}
			if page := body(t, s.browser().do("GET", address)); leadsTo(page) != "" {
				t.Errorf("another browser is led to %s", leadsTo(page))
			}
			elsewhere, _, _ := strings.Cut(address, "reference=")
			if page := body(t, b.do("GET", elsewhere+"reference=AAAA-2222")); !strings.Contains(elsewhere, "/connected") &&
				leadsTo(page) != "" {
				t.Errorf("with the reference of another consent, the page leads to %s", leadsTo(page))
			}
		})
	}
}

// An origin that is not allowed anymore, or never was, is not linked.
func TestNoPageLeadsToAnotherOrigin(t *testing.T) {
	for name, to := range map[string]string{"another origin": "https://evil.example/done",
		"user": "https://app.example.net@evil.example", "script": "javascript:alert(1)", "none": ""} {
		s := returning(t)
		s.returnURL = to // a row that somebody else wrote
		path, _ := s.invite(rotation.Identity{})
		b := s.browser()
		page := b.wantResult(b.do("GET", b.allow(path)), connectedPage)
		answer := b.do(http.MethodGet, "/connected")
		if leadsTo(page) != "" || strings.Contains(page, "evil") || answer.Header.Get("Refresh") != "" {
			t.Errorf("%s: the page leads to %q", name, leadsTo(page))
		}
	}
}
