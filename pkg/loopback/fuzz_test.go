package loopback

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// For every request, only the awaited redirect counts, and no page says otherwise.
func FuzzServeHTTP(f *testing.F) {
	f.Add(http.MethodGet, "localhost", "/callback", "code=the-code&state="+state)
	f.Add(http.MethodGet, "LOCALHOST:80", "/callback", "error=access_denied&state="+state)
	f.Add(http.MethodPost, "localhost", "/callback", "code=the-code&state="+state)
	f.Add(http.MethodGet, "localhost", "/callback", "code=a&code=b&state="+state)
	f.Add(http.MethodGet, "localhost", "/callback", "code=a;state="+state+"&state=%zz")
	f.Fuzz(func(t *testing.T, method, host, path, query string) {
		r := newReceiver(&url.URL{Host: "localhost", Path: "/callback"}, token.NewSecret(state))
		page := httptest.NewRecorder()
		r.ServeHTTP(page, &http.Request{Method: method, Host: host, URL: &url.URL{Path: path, RawQuery: query}})
		asked, _ := url.ParseQuery(query)
		select {
		case got := <-r.result:
			if method != http.MethodGet || path != "/callback" || len(asked["state"]) != 1 || asked.Get("state") != state ||
				page.Code != http.StatusOK ||
				got.err == nil && (len(asked["code"]) != 1 || got.code.Reveal() != asked.Get("code") || asked.Has("error")) {
				t.Errorf("%s %q %q %q is taken for the redirect", method, host, path, query)
			}
		default:
			if page.Code == http.StatusOK {
				t.Errorf("%s %q %q %q is taken for nothing, and a page says otherwise", method, host, path, query)
			}
		}
	})
}
