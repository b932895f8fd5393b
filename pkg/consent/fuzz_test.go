package consent_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// FuzzHandler sends whole requests. Without a start of its own, no request may
// do more than read, and every answer is one of the known kinds.
func FuzzHandler(f *testing.F) {
	good := url.Values{"code": {"c"}, "state": {otherSecret}}.Encode()
	cookie := "__Host-tokenturn-" + hashOf(otherSecret)[:12] + "=" + otherSecret
	f.Add("GET", "/callback/sandbox", good, cookie, "tokens.example.com")
	f.Add("GET", "/callback/production", good+"&iss=x", cookie+"; "+cookie, "tokens.example.com")
	f.Add("GET", "/callback/sandbox", "error=access_denied&state="+otherSecret, cookie, "tokens.example.com:443")
	f.Add("POST", "/connect/"+otherSecret, "", "", "tokens.example.com")
	f.Add("GET", "/not-connected", "result=denied&reference=ABCD-2345", "", "TOKENS.example.com")
	f.Add("HEAD", "//x", "%", "=;=", "")
	s := newServer(f)
	s.invite(rotation.Identity{})
	f.Fuzz(func(t *testing.T, method, path, query, cookie, host string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Host: host,
			Header: http.Header{"Cookie": {cookie}, "Sec-Fetch-Site": {"same-origin"}}, Body: http.NoBody}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r.WithContext(t.Context()))
		switch w.Code {
		case 200, 400, 404, 405:
		default:
			t.Errorf("status %d", w.Code)
		}
		if w.Header().Get("Content-Security-Policy") == "" || len(w.Header()["Set-Cookie"]) != 0 ||
			w.Header().Get("Location") != "" {
			t.Errorf("header %v", w.Header())
		}
		if calls := s.store.made(); calls != "" && calls != "State" && calls != "Invitation" {
			t.Errorf("store calls %s", calls)
		}
		if len(query) > 20 && strings.Contains(w.Body.String(), query) {
			t.Error("the page repeats the query")
		}
	})
}
