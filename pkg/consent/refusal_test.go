package consent_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// attack is one bad callback, made from a good one.
type attack struct {
	name   string
	change func(a *attempt)
	status int
	page   string
	calls  string // of the store
}

// attempt is a callback that would succeed as it is.
type attempt struct {
	s      *server
	b      *browser
	method string
	path   string
	query  url.Values
	raw    string // instead of query
	header http.Header
	host   string
}

func (a *attempt) send() *http.Response {
	raw := a.raw
	if raw == "" {
		raw = a.query.Encode()
	}
	return a.b.do(a.method, a.path, func(r *http.Request) {
		r.URL.RawQuery = raw
		if a.host != "" {
			r.Host = a.host
		}
		for name, values := range a.header {
			r.Header[name] = values
		}
	})
}

func set(name string, values ...string) func(*attempt) {
	return func(a *attempt) { a.query[name] = values }
}

func rawly(change func(good string) string) func(*attempt) {
	return func(a *attempt) { a.raw = change(a.query.Encode()) }
}

func without(name string) func(*attempt) { return func(a *attempt) { a.query.Del(name) } }

func cookieHeader(change func(name, value string) string) func(*attempt) {
	return func(a *attempt) {
		c := a.b.cookies[0]
		a.header = http.Header{"Cookie": {change(c.Name, c.Value)}}
	}
}

const otherSecret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

var attacks = []attack{
	// Malformed: no store is asked.
	{"no parameters", func(a *attempt) { a.query = url.Values{} }, 400, refusedPage, ""},
	{"no state", without("state"), 400, refusedPage, ""},
	{"empty state", set("state", ""), 400, refusedPage, ""},
	{"state of another form", set("state", "abc"), 400, refusedPage, ""},
	{"overlong state", func(a *attempt) { a.query.Set("state", a.query.Get("state")+"A") }, 400, refusedPage, ""},
	{"lower-case state", func(a *attempt) { a.query.Set("state", strings.ToLower(a.query.Get("state"))) }, 400,
		refusedPage, ""},
	{"state and a newline", func(a *attempt) { a.query.Set("state", a.query.Get("state")+"\n") }, 400, refusedPage, ""},
	{"state twice", func(a *attempt) { a.query.Add("state", a.query.Get("state")) }, 400, refusedPage, ""},
	{"no code", without("code"), 400, refusedPage, ""},
	{"empty code", set("code", ""), 400, refusedPage, ""},
	{"code twice", func(a *attempt) { a.query.Add("code", "second") }, 400, refusedPage, ""},
	{"overlong code", set("code", strings.Repeat("x", 2049)), 400, refusedPage, ""},
	{"code with a space", set("code", "a b"), 400, refusedPage, ""},
	{"code and error together", set("error", "access_denied"), 400, refusedPage, ""},
	{"code and an empty error", set("error", ""), 400, refusedPage, ""},
	{"error twice", func(a *attempt) { a.query = url.Values{"state": a.query["state"], "error": {"access_denied", "x"}} },
		400, refusedPage, ""},
	{"overlong error", func(a *attempt) {
		a.query = url.Values{"state": a.query["state"], "error": {strings.Repeat("x", 65)}}
	}, 400, refusedPage, ""},
	{"error with markup and spaces", func(a *attempt) {
		a.query = url.Values{"state": a.query["state"], "error": {"<img src=x onerror=alert(1)>"}}
	}, 400, refusedPage, ""},
	{"100 kB description", set("error_description", strings.Repeat("x", 100_000)), 400, refusedPage, ""},
	{"unknown parameter twice", set("utm", "1", "2"), 400, refusedPage, ""},
	{"issuer twice", set("iss", loginURL, loginURL), 400, refusedPage, ""},
	{"empty issuer", set("iss", ""), 400, refusedPage, ""},
	{"CRLF", set("code", "a\r\nSet-Cookie: x=1"), 400, refusedPage, ""},
	{"NUL", set("error_description", "a\x00b"), 400, refusedPage, ""},
	{"NUL in a name", set("error_\x00description", "a"), 400, refusedPage, ""},
	{"invalid UTF-8", set("error_description", "a\xff"), 400, refusedPage, ""},
	{"bad escape", rawly(func(good string) string { return good + "&x=%zz" }), 400, refusedPage, ""},
	{"semicolon", rawly(func(good string) string { return good + ";x=1" }), 400, refusedPage, ""},
	{"no cookie", func(a *attempt) { a.b.cookies = nil }, 400, refusedPage, ""},
	{"unprefixed cookie", cookieHeader(func(name, value string) string {
		return strings.TrimPrefix(name, "__Host-") + "=" + value
	}), 400, refusedPage, ""},
	{"cookie of another state", cookieHeader(func(_, value string) string {
		return "__Host-tokenturn-000000000000=" + value
	}), 400, refusedPage, ""},
	{"cookie twice", cookieHeader(func(name, value string) string {
		return name + "=" + value + "; " + name + "=" + otherSecret
	}), 400, refusedPage, ""},
	{"empty cookie", cookieHeader(func(name, _ string) string { return name + "=" }), 400, refusedPage, ""},
	{"cookie of another form", cookieHeader(func(name, value string) string { return name + "=" + value[1:] }), 400,
		refusedPage, ""},
	{"10 kB of cookies", cookieHeader(func(name, value string) string {
		return name + "=" + value + "; x=" + strings.Repeat("x", 10_000)
	}), 400, refusedPage, ""},
	{"10 kB of cookies in lines", func(a *attempt) {
		c := a.b.cookies[0]
		a.header = http.Header{"Cookie": {c.Name + "=" + c.Value, "x=" + strings.Repeat("x", 5000), "y=" +
			strings.Repeat("y", 5000)}}
	}, 400, refusedPage, ""},
	{"malformed environment", func(a *attempt) { a.path = "/callback/Sand%20box" }, 400, refusedPage, ""},
	{"environment with a slash", func(a *attempt) { a.path = "/callback/sandbox/" }, 400, refusedPage, ""},
	{"no environment", func(a *attempt) { a.path = "/callback" }, 404, notFoundPage, ""},
	{"attacker's Host", func(a *attempt) { a.host = "evil.example.com" }, 400, refusedPage, ""},
	{"no Host", func(a *attempt) { a.host = ":443" }, 400, refusedPage, ""},
	{"Host with another port", func(a *attempt) { a.host = "tokens.example.com:8443" }, 400, refusedPage, ""},
	{"HEAD", func(a *attempt) { a.method = "HEAD" }, 405, notFoundPage, ""},
	{"POST", func(a *attempt) { a.method = "POST" }, 405, notFoundPage, ""},
	{"PUT", func(a *attempt) { a.method = "PUT" }, 405, notFoundPage, ""},
	// Well-formed but not trusted: the state is read and stays as it was.
	{"unknown state", func(a *attempt) {
		a.query.Set("state", otherSecret)
		a.b.cookies[0].Name = "__Host-tokenturn-" + hashOf(otherSecret)[:12]
	}, 400, refusedPage, "State"},
	{"expired state", func(a *attempt) { a.s.clock.advance(10 * time.Minute) }, 400, refusedPage, "State"},
	{"state expired by a second", func(a *attempt) { a.s.clock.advance(10*time.Minute + time.Second) }, 400, refusedPage,
		"State"},
	{"consumed state, other cookie", func(a *attempt) {
		c := *a.b.cookies[0]
		a.b.wantResult(a.send(), connectedPage)
		c.Value = otherSecret
		a.b.cookies = []*http.Cookie{&c}
	}, 400, refusedPage, "State"},
	{"other cookie", func(a *attempt) { a.b.cookies[0].Value = otherSecret }, 400, refusedPage, "State"},
	{"wrong environment's path", func(a *attempt) { a.path = "/callback/production" }, 400, refusedPage, "State"},
	{"foreign issuer", set("iss", "https://login.example.com"), 400, refusedPage, "State"},
	{"issuer that begins like ours", set("iss", loginURL+".evil.example"), 400, refusedPage, "State"},
}

func TestBadCallbacksChangeNothing(t *testing.T) {
	s := newServer(t)
	var refusal string
	for _, c := range attacks {
		t.Run(c.name, func(t *testing.T) {
			path, hash := s.invite(rotation.Identity{})
			b := s.browser()
			good := b.allow(path)
			_, query, _ := strings.Cut(good, "?")
			values, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			kept := *b.cookies[0]
			a := &attempt{s: s, b: b, method: "GET", path: "/callback/sandbox", query: values}
			c.change(a)
			invited, record, redeems := s.invitation(hash), s.record(), s.issuer.count()
			s.store.made()

			answer := a.send()

			page := want(t, answer, c.status, c.page)
			if got := s.store.made(); got != c.calls {
				t.Errorf("store calls %q, want %q", got, c.calls)
			}
			if c.status == 400 { // the one constant refusal
				if refusal == "" {
					refusal = page
				}
				if page != refusal || len(answer.Header["Set-Cookie"]) != 0 || answer.Header.Get("Location") != "" {
					t.Error("this refusal differs from the others")
				}
			}
			if s.issuer.count() != redeems || s.invitation(hash) != invited || s.record().Revision != record.Revision {
				t.Error("something was changed")
			}
			if strings.Contains(c.name, "expired") {
				return
			}
			// The right browser can still finish.
			b.cookies = []*http.Cookie{&kept}
			b.wantResult(b.do("GET", good), connectedPage)
		})
	}
}

// The person sees the one constant refusal; the log names both environments.
func TestAStateOfAnotherEnvironmentIsLogged(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	_, query, _ := strings.Cut(b.allow(path), "?")
	want(t, b.do("GET", "/callback/production?"+query), 400, refusedPage)
	want(t, b.do("GET", "/callback/sandbox?"+query+"&iss=https://login.example.com/oauth?code=canary"), 400, refusedPage)
	for _, both := range []string{"a state of sandbox at the redirect URI of production",
		"another issuer's answer: of login.example.com, where " + strings.TrimPrefix(loginURL, "https://") +
			" of sandbox was asked"} {
		if !strings.Contains(s.log.String(), both) {
			t.Errorf("the log does not name both, as in %q:\n%s", both, s.log.String())
		}
	}
	if strings.Contains(s.log.String(), "canary") {
		t.Error("more of the issuer than its host is in the log")
	}
}

func TestStateLivesTenMinutes(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	address := b.allow(path)
	s.clock.advance(10*time.Minute - time.Second)
	b.wantResult(b.do("GET", address), connectedPage)
}

// Another request of the same browser consumes the state between this one's read
// and its Consume.
func TestConsumeDecides(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	address := b.allow(path)
	s.store.ahead = map[string]func(){"Consume": func() {
		s.store.ahead = nil
		b.wantResult(b.do("GET", address), connectedPage)
	}}
	b.wantResult(b.do("GET", address), connectedPage)
	if got := s.store.made(); s.issuer.count() != 1 || !strings.Contains(got, "Consume") {
		t.Errorf("%d exchanges, store calls %s", s.issuer.count(), got)
	}
}

func TestBadLinksChangeNothing(t *testing.T) {
	type link struct {
		s          *server
		path, hash string
	}
	s := newServer(t)
	for _, c := range []struct {
		name   string
		change func(l *link)
		status int
		page   string
		calls  string
	}{
		{"no secret", func(l *link) { l.path = "/connect/" }, 404, linkUnusablePage, ""},
		{"truncated", func(l *link) { l.path = l.path[:len(l.path)-1] }, 404, linkUnusablePage, ""},
		{"extended", func(l *link) { l.path += "A" }, 404, linkUnusablePage, ""},
		{"trailing slash", func(l *link) { l.path += "/" }, 404, linkUnusablePage, ""},
		{"a connection's name", func(l *link) { l.path = "/connect/sandbox/acme" }, 404, linkUnusablePage, ""},
		{"markup", func(l *link) { l.path = "/connect/%3Cscript%3E" }, 404, linkUnusablePage, ""},
		{"unknown", func(l *link) { l.path = "/connect/" + otherSecret }, 404, linkUnusablePage, "Invitation"},
		{"expired this second", func(l *link) { l.s.clock.advance(invitations.DefaultLifetime) }, 410, linkExpiredPage,
			"Invitation"},
		{"expired long ago", func(l *link) { l.s.clock.advance(20 * invitations.DefaultLifetime) }, 410, linkExpiredPage,
			"Invitation"},
		{"revoked and expired", func(l *link) {
			if err := l.s.store.RevokeInvitation(l.s.t.Context(), l.hash, l.s.clock.Now()); err != nil {
				l.s.t.Fatal(err)
			}
			l.s.clock.advance(invitations.DefaultLifetime)
		}, 410, linkUnusablePage, "Invitation"},
		{"revoked", func(l *link) {
			if err := l.s.store.RevokeInvitation(l.s.t.Context(), l.hash, l.s.clock.Now()); err != nil {
				l.s.t.Fatal(err)
			}
		}, 410, linkUnusablePage, "Invitation"},
		{"sixth start", func(l *link) {
			for range invitations.MaxStarts {
				l.s.browser().start(l.path)
			}
		}, 410, linkUnusablePage, "Invitation"},
		{"used", func(l *link) {
			b := l.s.browser()
			b.wantResult(b.do("GET", b.allow(l.path)), connectedPage)
		}, 410, linkUsedPage, "Invitation"},
		{"deleted connection", func(l *link) {
			l.path, l.hash = l.s.inviteTo(token.Connection{Environment: "sandbox", Name: "never-registered"},
				rotation.Identity{})
		}, 410, linkUnusablePage, "Invitation"},
		{"store down", func(l *link) { l.s.store.down = map[string]bool{"Invitation": true} }, 503, unavailablePage,
			"Invitation"},
	} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(c.name+" "+method, func(t *testing.T) {
				l := &link{s: s}
				l.path, l.hash = s.invite(rotation.Identity{})
				c.change(l)
				before := s.invitation(l.hash)
				s.store.made()
				answer := s.browser().do(method, l.path)
				s.store.down = nil
				want(t, answer, c.status, c.page)
				if got := s.store.made(); got != c.calls {
					t.Errorf("store calls %q, want %q", got, c.calls)
				}
				if s.invitation(l.hash) != before || len(answer.Header["Set-Cookie"]) != 0 {
					t.Error("something was changed")
				}
			})
		}
	}
}

// Another start uses up the invitation after Usable was asked.
func TestStartThatTheStoreRefuses(t *testing.T) {
	s := newServer(t)
	path, hash := s.invite(rotation.Identity{})
	s.store.ahead = map[string]func(){"Start": func() {
		if err := s.store.RevokeInvitation(t.Context(), hash, s.clock.Now()); err != nil {
			t.Error(err)
		}
	}}
	answer := s.browser().do("POST", path)
	want(t, answer, 410, linkUnusablePage)
	if len(answer.Header["Set-Cookie"]) != 0 {
		t.Error("a cookie was set")
	}
}

func TestScannersUseNothingUp(t *testing.T) {
	s := newServer(t)
	path, hash := s.invite(rotation.Identity{})
	before := s.invitation(hash)
	for _, method := range []string{"GET", "HEAD", "GET"} {
		for range 20 {
			if answer := s.browser().do(method, path); answer.StatusCode != 200 || len(answer.Header["Set-Cookie"]) != 0 {
				t.Fatalf("%s answered %d", method, answer.StatusCode)
			}
		}
	}
	if s.invitation(hash) != before || s.store.made() != "Invitation" {
		t.Error("something was changed")
	}
}

func TestForeignFormsAreRefused(t *testing.T) {
	for _, c := range []struct {
		name         string
		site, origin string
		status       int
	}{
		{"this site's page under no-referrer", "same-origin", "null", 303},
		{"another site", "cross-site", "https://evil.example.com", 400},
		{"a neighbouring subdomain", "same-site", "https://other.example.com", 400},
		{"an old browser, this site", "", publicURL, 303},
		{"an old browser under no-referrer", "", "null", 400},
		{"an old browser, another site", "", "https://evil.example.com", 400},
		{"no browser", "", "", 303},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			path, _ := s.invite(rotation.Identity{})
			answer := s.browser().do("POST", path, func(r *http.Request) {
				r.Header.Del("Origin")
				r.Header.Del("Sec-Fetch-Site")
				if c.site != "" {
					r.Header.Set("Sec-Fetch-Site", c.site)
				}
				if c.origin != "" {
					r.Header.Set("Origin", c.origin)
				}
			})
			if c.status == 303 {
				if answer.StatusCode != 303 {
					t.Errorf("status %d", answer.StatusCode)
				}
				return
			}
			want(t, answer, c.status, refusedPage)
			if got := s.store.made(); got != "" {
				t.Errorf("store calls %q", got)
			}
		})
	}
}

func TestOtherAddresses(t *testing.T) {
	s := newServer(t)
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/", 404, ""},
		{"GET", "/favicon.ico", 404, ""},
		{"GET", "/connect", 404, ""},
		{"GET", "//evil.example.com/connect", 404, ""},
		{"GET", "/connected/", 404, ""},
		{"GET", "/healthz/", 404, ""},
		{"POST", "/", 404, ""},
		{"DELETE", "/connect/" + otherSecret, 405, "GET, HEAD, POST"},
		{"OPTIONS", "/connect/" + otherSecret, 405, "GET, HEAD, POST"},
		{"HEAD", "/callback/sandbox", 405, "GET"},
		{"POST", "/connected", 405, "GET, HEAD"},
		{"POST", "/healthz", 405, "GET, HEAD"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			answer := s.browser().do(c.method, c.path)
			want(t, answer, c.status, notFoundPage)
			if answer.Header.Get("Allow") != c.allow {
				t.Errorf("Allow %q", answer.Header.Get("Allow"))
			}
		})
	}
	if got := s.store.made(); got != "" {
		t.Errorf("store calls %q", got)
	}
}

func TestHealth(t *testing.T) {
	s := newServer(t)
	answer := s.browser().do("GET", "/healthz", func(r *http.Request) { r.Host = "10.0.0.7:8080" })
	if answer.StatusCode != 200 || body(t, answer) != "ok\n" || s.store.made() != "" {
		t.Errorf("status %d", answer.StatusCode)
	}
}
