package console_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/console"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/webpage"
)

// everyPage are paths of every kind of page.
var everyPage = []string{"/", "/?q=acme", "/connections/sandbox/acme", "/notices", "/console/console.js", "/events"}

// A name of another site may lead to this machine (DNS rebinding). Its pages are then of one
// origin with whatever answers here, so a request for another host gets nothing.
func TestAForeignHostIsRefused(t *testing.T) {
	s := open(t, nil)
	s.put(active(acme, 1))
	own := s.server.Listener.Addr().String()
	_, port, _ := strings.Cut(own, ":")
	for _, host := range []string{"evil.example:" + port, "evil.example", "localhost:" + port, "127.0.0.1", own + ".",
		own + ".evil.example", "evil.example@" + own} {
		for _, path := range everyPage {
			got := s.do("GET", path, nil, func(r *http.Request) { r.Host = host })
			if got.status != http.StatusMisdirectedRequest && got.status != http.StatusBadRequest {
				t.Errorf("%s of host %s: %d", path, host, got.status)
			}
			mustNotContain(t, got.body, "sandbox/acme", "csrf")
		}
	}
	if got := s.do("POST", "/connections/sandbox/acme/rotate", url.Values{"csrf": {s.csrf()}}, func(r *http.Request) {
		r.Host = "evil.example"
	}); got.status != http.StatusMisdirectedRequest || s.actions.did() != nil {
		t.Errorf("a POST to another host: %d, %v", got.status, s.actions.did())
	}
}

// Browsers leave out the port of the scheme.
func TestTheOwnHostIsAnsweredWithAndWithoutItsUsualPort(t *testing.T) {
	for public, want := range map[string]map[string]int{
		"http://localhost:80": {"localhost": http.StatusOK, "LocalHost:80": http.StatusOK,
			"localhost:443": http.StatusMisdirectedRequest},
		"http://localhost": {"localhost": http.StatusOK, "localhost:80": http.StatusOK},
		"https://Console.example:443": {"console.example": http.StatusOK, "console.example:443": http.StatusOK,
			"console.example:80": http.StatusMisdirectedRequest},
	} {
		s := open(t, func(cfg *console.Config) { cfg.PublicURL = public })
		for host, status := range want {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.Host, r.RemoteAddr = host, "127.0.0.1:50000"
			if s.handler.ServeHTTP(w, r); w.Code != status {
				t.Errorf("%s, host %s: %d, want %d", public, host, w.Code, status)
			}
		}
	}
	s := open(t, func(cfg *console.Config) { cfg.PublicURL = "http://localhost:80" })
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/connections/sandbox/acme/rotate", nil)
	r.Host, r.RemoteAddr = "localhost", "127.0.0.1:50000"
	r.Header.Set("Origin", "http://localhost")
	if s.handler.ServeHTTP(w, r); w.Code != http.StatusUnsupportedMediaType { // it is no form
		t.Errorf("a POST: %d", w.Code)
	}
}

func TestOnlyThisMachineIsAnswered(t *testing.T) {
	s := open(t, nil)
	s.put(active(acme, 1))
	s.notify(rotation.Notice{Kind: rotation.NoticeNeedsConsent, Connection: acme, Summary: "SUMMARY",
		Link: token.NewSecret("http://localhost/connect/" + canary), At: time.Now()})
	ask := func(address, header string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", s.server.URL+"/", nil)
		r.RemoteAddr = address
		if header != "" {
			r.Header.Set(header, "192.0.2.1")
		}
		s.handler.ServeHTTP(w, r)
		return w
	}
	for address, want := range map[string]int{"127.0.0.1:50000": http.StatusOK, "[::1]:50000": http.StatusOK,
		"[::ffff:127.0.0.1]:50000": http.StatusOK, "192.0.2.1:50000": http.StatusForbidden,
		"[2001:db8::1]:50000": http.StatusForbidden, "10.0.0.1:1": http.StatusForbidden, "": http.StatusForbidden} {
		got := ask(address, "")
		if got.Code != want || strings.Contains(got.Body.String(), "SUMMARY") != (want == http.StatusOK) {
			t.Errorf("from %q: %d, want %d", address, got.Code, want)
		}
	}
	for _, header := range []string{"X-Forwarded-For", "Forwarded", "X-Forwarded-Host", "X-Real-IP", "Via"} {
		if got := ask("127.0.0.1:50000", header); got.Code != http.StatusForbidden {
			t.Errorf("with %s, so from a proxy: %d", header, got.Code)
		}
	}
}

func TestPathsAreMatchedStrictly(t *testing.T) {
	s := open(t, nil)
	s.put(active(acme, 1))
	for _, path := range []string{"//", "/connections", "/connections/", "/connections/sandbox", "/connections/sandbox/",
		"/connections/sandbox/acme/", "/connections//acme", "/connections/sandbox/acme/rotate/",
		"/connections/sandbox/acme/unknown", "/connections/sandbox%2Facme", "/connections/sandbox/%61cme",
		"/connections/sandbox/../sandbox/acme", "/connections/./sandbox/acme", "/connections/SANDBOX/acme",
		"/connections/sandbox/acme%00", "/connections/sandbox/acme%2e", "/connections/sandbox/acme;x=1", "/events/",
		"/%65vents", "/console/", "/console/console.css/", "/console/../console/console.js", "/console/frame.html",
		"/login", "/logout", "/experiments/x", "/connections/sandbox/nobody", "/elsewhere", "/notices/"} {
		got := s.do("GET", "/", nil, func(r *http.Request) { r.URL.Opaque = path })
		if got.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.status)
		}
		mustNotContain(t, got.body, "pat@example.com")
	}
	if got := s.get("/connections/sandbox/acme"); got.status != http.StatusOK {
		t.Errorf("the right path: %d", got.status)
	}
}

func TestMethods(t *testing.T) {
	s := open(t, nil)
	s.put(active(acme, 1))
	csrf := s.csrf()
	for request, allow := range map[[2]string]string{
		{"POST", "/"}: "GET, HEAD", {"POST", "/notices"}: "GET, HEAD", {"PUT", "/connections/sandbox/acme"}: "GET, HEAD",
		{"GET", "/connections/sandbox/acme/rotate"}:  "POST",
		{"HEAD", "/connections/sandbox/acme/rotate"}: "POST", {"HEAD", "/events"}: "GET",
		{"DELETE", "/connections/sandbox/acme/disconnect"}: "POST",
	} {
		got := s.do(request[0], request[1], url.Values{"csrf": {csrf}}, nil)
		if got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != allow {
			t.Errorf("%v: %d, allowed: %s", request, got.status, got.header.Get("Allow"))
		}
	}
	if got := s.do("HEAD", "/", nil, nil); got.status != http.StatusOK || got.body != "" {
		t.Errorf("HEAD: %d %q", got.status, got.body)
	}
	if s.actions.did() != nil {
		t.Errorf("done: %v", s.actions.did())
	}
}

// TestCrossSitePosts: nothing but a form of this browser's page changes anything.
func TestCrossSitePosts(t *testing.T) {
	s := open(t, nil)
	s.put(active(acme, 1))
	csrf := s.csrf()
	other := newBrowser()
	s.browser, other = other, s.browser
	foreign := s.csrf() // of another browser
	s.browser = other
	ours := func(r *http.Request) {}
	for name, test := range map[string]struct {
		csrf   string
		change func(*http.Request)
		want   int
	}{
		"without a token":               {"", ours, http.StatusForbidden},
		"with the token of another one": {foreign, ours, http.StatusForbidden},
		"with half of the token":        {csrf[:20], ours, http.StatusForbidden},
		"without a cookie":              {csrf, func(r *http.Request) { s.browser = newBrowser() }, http.StatusForbidden},
		"from another origin": {csrf, func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
			http.StatusForbidden},
		"from another port": {csrf, func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:1") },
			http.StatusForbidden},
		"from nowhere": {csrf, func(r *http.Request) { r.Header.Set("Origin", "null") }, http.StatusForbidden},
		"from another site": {csrf, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
			http.StatusForbidden},
		"from the same site": {csrf, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
			http.StatusForbidden},
		"as text": {csrf, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
			http.StatusUnsupportedMediaType},
		"as JSON": {csrf, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") },
			http.StatusUnsupportedMediaType},
	} {
		got := s.do("POST", "/connections/sandbox/acme/rotate", url.Values{"csrf": {test.csrf}}, test.change)
		if got.status != test.want {
			t.Errorf("%s: %d, want %d", name, got.status, test.want)
		}
		s.browser = other
	}
	for _, action := range []string{"rotate", "release", "discard", "disconnect", "invite"} {
		got := s.do("POST", "/connections/sandbox/acme/"+action, url.Values{"confirm": {"sandbox/acme"},
			"refresh_token": {"x"}}, nil)
		if got.status != http.StatusForbidden {
			t.Errorf("%s without a token: %d", action, got.status)
		}
	}
	got := s.do("POST", "/connections/sandbox/acme/rotate?csrf="+csrf, url.Values{}, nil)
	if got.status != http.StatusForbidden {
		t.Errorf("with the token in the address: %d", got.status)
	}
	if got := s.do("POST", "/connections/sandbox/acme/rotate", url.Values{"csrf": {csrf},
		"x": {strings.Repeat("x", 20<<10)}}, nil); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body: %d", got.status)
	}
	if s.actions.did() != nil {
		t.Errorf("done: %v", s.actions.did())
	}
	for name, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
		if got := s.do("GET", "/events", nil, func(r *http.Request) { r.Header.Set(name, value) }); got.status !=
			http.StatusForbidden {
			t.Errorf("a stream for another site, by its %s: %d", name, got.status)
		}
	}
}

// A link on another site leads here without the cookie, which must not cost the cookie.
func TestALinkFromAnotherSiteKeepsTheCookie(t *testing.T) {
	s := open(t, nil)
	got := s.do("GET", "/?q=%22%3Ex", nil, func(r *http.Request) {
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
	})
	if got.status != http.StatusOK || got.header.Get("Set-Cookie") != "" {
		t.Errorf("%d, cookie %q", got.status, got.header.Get("Set-Cookie"))
	}
	mustContain(t, got.body, `http-equiv="refresh"`, "/?q=%22%3Ex")
}

func TestEveryAnswerIsProtected(t *testing.T) {
	s := open(t, nil)
	s.put(active(acme, 1))
	for _, path := range append(everyPage[:5:5], "/elsewhere-here", "/connections/x") {
		got := s.get(path)
		if path == "/elsewhere-here" {
			continue // not the console's
		}
		policy := got.header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; style-src "+webpage.StyleSource) ||
			strings.Contains(policy, "unsafe") || !strings.Contains(policy, "script-src 'self'") ||
			!strings.Contains(policy, "frame-ancestors 'none'") || got.header.Get("Cache-Control") != "no-store" ||
			got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: %v", path, got.header)
		}
		if cookie := got.header.Get("Set-Cookie"); cookie != "" && (!strings.Contains(cookie, "HttpOnly") ||
			!strings.Contains(cookie, "SameSite=Strict")) {
			t.Errorf("%s: cookie %s", path, cookie)
		}
		for _, inline := range []string{" style=", " onclick=", "javascript:"} {
			if strings.HasSuffix(path, ".js") {
				break
			}
			mustNotContain(t, got.body, inline)
		}
	}
}

func TestReadOnlyHasNoForms(t *testing.T) {
	s := open(t, func(cfg *console.Config) { cfg.Actions = nil })
	rec := active(acme, 1)
	rec.Status = rotation.NeedsConsent
	s.put(rec)
	s.notify(rotation.Notice{Kind: rotation.NoticeNeedsConsent, Connection: acme, Link: token.NewSecret("x"),
		At: time.Now()})
	for _, path := range []string{"/", "/connections/sandbox/acme"} {
		mustNotContain(t, s.get(path).body, "formaction=", `action="/connections`, "Disconnect</button>")
	}
	held := active(bolt, 1)
	held.Quarantined = true
	s.put(held)
	for _, prefix := range []string{"/", "/connections/"} {
		paths := []string{prefix, prefix}
		if prefix != "/" {
			paths = []string{prefix + acme.String(), prefix + bolt.String()}
		}
		mustContain(t, s.get(paths[0]).body, "<code>tokenturn connection invite sandbox/acme</code>", "read-only")
		page := s.get(paths[1]).body
		mustContain(t, page, "<code>tokenturn connection release sandbox/bolt</code>",
			"<code>tokenturn connection discard sandbox/bolt</code>")
		mustNotContain(t, page, `#quarantine"`)
	}
	for _, action := range []string{"rotate", "release", "discard", "disconnect", "invite"} {
		if got := s.post("/connections/sandbox/acme/"+action, "confirm", "sandbox/acme"); got.status != http.StatusForbidden {
			t.Errorf("%s: %d", action, got.status)
		}
	}
}

func TestLogin(t *testing.T) {
	now := time.Now()
	s := open(t, func(cfg *console.Config) {
		cfg.Password, cfg.Now = token.NewSecret("open sesame"), func() time.Time { return now }
	})
	s.put(active(acme, 1))
	for _, path := range []string{"/", "/connections/sandbox/acme", "/connections/sandbox/nobody", "/notices",
		"/?q=acme"} {
		if got := s.get(path); got.status != http.StatusSeeOther || got.header.Get("Location") != "/login" {
			t.Errorf("%s without a login: %d %s", path, got.status, got.header.Get("Location"))
		}
	}
	if got := s.get("/events"); got.status != http.StatusUnauthorized {
		t.Errorf("a stream without a login: %d", got.status)
	}
	logIn := func(password string) answer {
		token := csrfForm.FindStringSubmatch(s.get("/login").body)
		if token == nil {
			t.Fatal("no form")
		}
		return s.do("POST", "/login", url.Values{"csrf": {token[1]}, "password": {password}}, nil)
	}
	csrf := csrfForm.FindStringSubmatch(s.get("/login").body)[1]
	if got := s.do("POST", "/connections/sandbox/acme/rotate", url.Values{"csrf": {csrf}}, nil); got.status !=
		http.StatusUnauthorized {
		t.Errorf("an action without a login: %d", got.status)
	}
	if got := s.do("POST", "/login", url.Values{"password": {"open sesame"}}, nil); got.status != http.StatusForbidden {
		t.Errorf("a login without a token in the form: %d", got.status)
	}
	if got := logIn("guess"); got.status != http.StatusForbidden {
		t.Errorf("a wrong password: %d", got.status)
	}
	before := s.browser.Jar.Cookies(mustURL(t, s.server.URL))[0].Value
	if got := logIn(" open sesame\n"); got.status != http.StatusSeeOther || got.header.Get("Location") != "/" {
		t.Fatalf("the right password: %d %s", got.status, got.body)
	}
	if s.browser.Jar.Cookies(mustURL(t, s.server.URL))[0].Value == before {
		t.Error("the cookie from before the login is the session")
	}
	mustContain(t, s.get("/").body, "sandbox/acme", "Log out")
	if got := s.post("/connections/sandbox/acme/rotate"); got.status != http.StatusOK {
		t.Errorf("an action: %d", got.status)
	}
	// from elsewhere, with the cookie
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", s.server.URL+"/", nil)
	r.RemoteAddr = "192.0.2.1:50000"
	r.AddCookie(s.browser.Jar.Cookies(mustURL(t, s.server.URL))[0])
	if s.handler.ServeHTTP(w, r); w.Code != http.StatusOK {
		t.Errorf("from elsewhere: %d", w.Code)
	}
	now = now.Add(13 * time.Hour)
	if got := s.get("/"); got.status != http.StatusSeeOther {
		t.Errorf("after the session: %d", got.status)
	}
	if logIn("open sesame"); s.get("/").status != http.StatusOK {
		t.Error("no second login")
	}
	if got := s.post("/logout"); got.status != http.StatusSeeOther || s.get("/").status != http.StatusSeeOther {
		t.Errorf("after the logout: %d", got.status)
	}
	for range 10 {
		logIn("guess")
	}
	if got := logIn("guess"); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("after ten guesses: %d", got.status)
	}
	if got := logIn("open sesame"); got.status != http.StatusSeeOther {
		t.Errorf("the right password after guesses of others: %d", got.status)
	}
	s.post("/logout")
	now = now.Add(time.Minute)
	if got := logIn("guess"); got.status != http.StatusForbidden {
		t.Errorf("a guess a minute later: %d", got.status)
	}
	mustNotContain(t, s.log.String(), "open sesame", "guess")
}

func mustURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for _, public := range []string{"", "localhost:8090", "ftp://localhost", "http://localhost/path", "://"} {
		if _, err := console.New(console.Config{PublicURL: public}); err == nil || !strings.Contains(err.Error(),
			"PublicURL") || !strings.Contains(err.Error(), "Connections") || !strings.Contains(err.Error(), "Logger") {
			t.Errorf("%q: %v", public, err)
		}
	}
}

// TestNothingSecretIsShown plants canaries in everything that is secret in the store.
func TestNothingSecretIsShown(t *testing.T) {
	s := open(t, nil)
	rec := active(acme, 3)
	s.put(rec, rotation.Event{At: time.Now(), Kind: "decided", Epoch: 1, Generation: 3, Detail: "refresh"})
	if err := s.store.Ledger().SaveResponse(t.Context(), rotation.TokenResponse{Connection: acme,
		Key: rec.Current.Response, State: rotation.Quarantined, Sealed: []byte(canary + "SEALED")}); err != nil {
		t.Fatal(err)
	}
	if err := s.store.SecretStore().Create(t.Context(), acme, token.VersionID(token.NewSecret(canary+"TOKEN")),
		token.NewSecret(canary+"TOKEN")); err != nil {
		t.Fatal(err)
	}
	s.notify(rotation.Notice{Kind: rotation.NoticeNeedsConsent, Connection: acme, Summary: "must allow again",
		Link: token.NewSecret("http://localhost/connect/" + canary + "NOTICE"), At: time.Now()})
	stream := s.stream("/events?boot=" + s.boot() + "&seq=0")
	var seen strings.Builder
	for _, path := range append(everyPage[:5:5], "/connections/sandbox/acme/x") {
		fmt.Fprint(&seen, s.get(path).body)
	}
	if got := s.post("/connections/sandbox/acme/release", "refresh_token", canary+"TYPED"); got.status != http.StatusOK {
		t.Errorf("release: %d %s", got.status, got.body)
	} else {
		fmt.Fprint(&seen, strings.ReplaceAll(got.body, "release with "+canary+"TYPED", "")) // the test's own sentence
	}
	link := s.post("/connections/sandbox/acme/invite")
	mustContain(t, link.body, canary+"LINK") // the direct answer to the click
	for _, path := range everyPage[:5] {
		fmt.Fprint(&seen, s.get(path).body)
	}
	s.put(active(acme, 4))
	fmt.Fprint(&seen, stream.next(t), s.log.String())
	mustNotContain(t, seen.String(), canary)
	mustContain(t, s.log.String(), "a consent link was created and shown")
}

func TestActions(t *testing.T) {
	s := open(t, nil)
	rec := active(acme, 1)
	rec.Quarantined = true
	s.put(rec)
	for path, want := range map[string]string{"rotate": "rotate sandbox/acme",
		"invite": "invite sandbox/acme", "discard": "discard sandbox/acme", "disconnect": "disconnect sandbox/acme"} {
		before := len(s.actions.did())
		got := s.post("/connections/sandbox/acme/"+path, "confirm", "sandbox/acme")
		if did := s.actions.did(); got.status != http.StatusOK || len(did) != before+1 || did[before] != want {
			t.Errorf("%s: %d, %v", path, got.status, did)
		}
	}
	before := len(s.actions.did())
	for _, typed := range []string{"", "acme", "sandbox/acme ", "SANDBOX/ACME"} {
		for _, path := range []string{"discard", "disconnect"} {
			if got := s.post("/connections/sandbox/acme/"+path, "confirm", typed); got.status != http.StatusBadRequest {
				t.Errorf("%s after %q: %d", path, typed, got.status)
			}
		}
	}
	if got := s.post("/connections/sandbox/acme/release"); got.status != http.StatusBadRequest {
		t.Errorf("release without a token: %d", got.status)
	}
	if did := s.actions.did(); len(did) != before {
		t.Errorf("done: %v", did[before:])
	}
	s.actions.fail = fmt.Errorf("it <must> wait")
	for _, path := range []string{"rotate", "invite"} {
		got := s.post("/connections/sandbox/acme/" + path)
		if got.status != http.StatusConflict {
			t.Errorf("%s that fails: %d", path, got.status)
		}
		mustContain(t, got.body, "it &lt;must&gt; wait")
		mustNotContain(t, got.body, canary)
	}
}
