package procore

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Each reason for which calls with a token fail is distinguished from the others.
func TestProbe(t *testing.T) {
	answering := func(path string, status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != path {
				return false
			}
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	const info, me = "/oauth/token/info", "/rest/v1.0/me"
	for name, test := range map[string]struct {
		company string
		spoil   func(b harness, pair token.Pair)
		server  func(http.ResponseWriter, *http.Request) bool
		health  Health
		detail  string
	}{
		"works":          {"4264807", nil, nil, Works, ""},
		"works anywhere": {"", nil, nil, Works, ""},
		"revoked": {"", func(b harness, _ token.Pair) { b.RevokeAll(b.app.ClientID, b.user.Login) }, nil,
			TokenRefused, "was revoked"},
		"refused by the API": {"", nil, answering(me, 401, ""), TokenRefused, "the API does not"},
		"not installed": {"4264807", func(b harness, _ token.Pair) { b.Uninstall(b.app.ClientID, 4264807) }, nil,
			NotInstalled, "not installed in company 4264807"},
		"another company": {"99", nil, nil, NoAccess, "no access to company 99"},
		"refused user":    {"", nil, answering(me, 403, `{"errors":["canary"]}`), NoAccess, "refuses its user"},
		"a firewall": {"4264807", nil, answering(me, 403, "<h1>canary</h1>"), Unavailable,
			"the API: unexpected answer HTTP 403"},
		"not installed, 401": {"4264807", nil, answering(me, 401, `{"errors":["App is not installed"]}`), NotInstalled,
			"not installed"},
		"a firewall's login": {"", nil, answering(info, 401, "<h1>canary</h1>"), Unavailable,
			"the login host: unexpected answer HTTP 401"},
		"no company": {"", nil, answering(me, 400, "Missing Procore-Company-Id header!"), CompanyMissing,
			"this connection has none"},
		"throttled login": {"", nil, answering(info, 429, "canary"), RateLimited, "the login host asks to wait"},
		"throttled API":   {"", nil, answering(me, 429, "canary"), RateLimited, "the API asks to wait"},
		"login host down": {"", nil, answering(info, 503, "<h1>canary</h1>"), Unavailable,
			"the login host: unexpected answer HTTP 503"},
		"API down": {"4264807", nil, answering(me, 502, "canary"), Unavailable,
			"the API: unexpected answer HTTP 502"},
		"request timeout": {"", nil, answering(me, 408, ""), Unavailable, "HTTP 408"},
		"odd info":        {"", nil, answering(info, 200, "canary"), Unavailable, "no application.uid"},
		"odd answer":      {"", nil, answering(me, 200, "canary"), Unavailable, "HTTP 200"},
		"of another client": {"", nil, answering(info, 200, `{"application":{"uid":"canary"},"resource_owner_id":1}`),
			OtherClient, "another client id"},
		"login host is silent": {"", func(b harness, _ token.Pair) { b.Close() }, func(w http.ResponseWriter,
			_ *http.Request) bool {
			panic(http.ErrAbortHandler)
		}, Unavailable, "the login host was not reached"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newHarness(t)
			pair := b.issue(t)
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if test.server == nil || !test.server(w, r) {
					b.ServeHTTP(w, r)
				}
			}))
			defer front.Close()
			b.app.LoginURL, b.app.APIURL = front.URL, front.URL
			if test.spoil != nil {
				test.spoil(b, pair)
			}
			presented := len(b.Presentations())
			got := b.issuer.Probe(t.Context(), b.app, pair.AccessToken, test.company)
			if got.Health != test.health || !strings.Contains(got.Detail, test.detail) || strings.Contains(got.Detail,
				"canary") {
				t.Errorf("got %+v, want %s with %q", got, test.health, test.detail)
			}
			if got.Health == RateLimited && got.Wait != 7*time.Second {
				t.Errorf("to wait for %v", got.Wait)
			}
			if got.Health == Works && got.ResourceOwner != "160586" {
				t.Errorf("it belongs to %q", got.ResourceOwner)
			}
			if len(b.Presentations()) != presented {
				t.Error("something was spent")
			}
		})
	}
}

func TestServerTime(t *testing.T) {
	b := newHarness(t)
	at, err := b.issuer.ServerTime(t.Context(), b.app)
	if err != nil || time.Since(at).Abs() > 5*time.Second {
		t.Errorf("got %v, %v", at, err)
	}
	b.Close()
	if _, err := b.issuer.ServerTime(t.Context(), b.app); err == nil {
		t.Error("a closed server tells the time")
	}
}
