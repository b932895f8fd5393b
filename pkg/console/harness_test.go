package console_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/console"
	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	acme = token.Connection{Environment: "sandbox", Name: "acme"}
	bolt = token.Connection{Environment: "sandbox", Name: "bolt"}
	core = token.Connection{Environment: "sandbox", Name: "core"}
	fine = token.Connection{Environment: "sandbox", Name: "fine"}
)

// canary is in everything secret that a test plants. No page, stream or log may contain it.
const canary = "CANARY"

// site is a console on a real store and a real server.
type site struct {
	t       testing.TB
	store   *embedded.Store
	handler *console.Handler
	server  *httptest.Server
	actions *recorder
	log     lockedBuffer
	browser *http.Client

	mu      sync.Mutex
	notices []rotation.Notice
}

// open starts a console. change may adapt its configuration.
func open(t testing.TB, change func(*console.Config)) *site {
	t.Helper()
	s := prepare(t, change)
	s.start()
	return s
}

// prepare makes a console that is not served yet.
func prepare(t testing.TB, change func(*console.Config)) *site {
	t.Helper()
	s := &site{t: t, actions: &recorder{}}
	var err error
	if s.store, err = embedded.Open(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handler.Wrap(http.NotFoundHandler()).ServeHTTP(w, r)
	}))
	cfg := console.Config{Connections: s.store.Ledger(), Actions: s.actions, Notices: s.shown,
		PublicURL: "http://" + s.server.Listener.Addr().String(), Interval: 10 * time.Millisecond,
		Cadence: time.Hour, Logger: slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&cfg)
	}
	if s.handler, err = console.New(cfg); err != nil {
		t.Fatal(err)
	}
	s.browser = newBrowser()
	return s
}

func (s *site) start() {
	s.server.Start()
	s.t.Cleanup(func() { s.handler.Close(); s.server.CloseClientConnections(); s.server.Close() })
}

func newBrowser() *http.Client {
	jar, _ := cookiejar.New(nil)
	return &http.Client{Jar: jar, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (s *site) shown() []rotation.Notice {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]rotation.Notice(nil), s.notices...)
}

func (s *site) notify(n rotation.Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notices = append([]rotation.Notice{n}, s.notices...)
}

// put stores a connection.
func (s *site) put(rec rotation.Record, history ...rotation.Event) {
	s.t.Helper()
	stored, _, err := s.store.Ledger().Load(s.t.Context(), rec.Connection)
	if err != nil {
		s.t.Fatal(err)
	}
	rec.Revision, rec.Stack = stored.Revision, "embedded"
	if _, err := s.store.Ledger().Write(s.t.Context(), rotation.Change{Record: rec, History: history}); err != nil {
		s.t.Fatal(err)
	}
}

// active is a healthy connection in its nth generation.
func active(c token.Connection, generation int64) rotation.Record {
	saved := time.Now().Add(-10 * time.Minute).UTC().Truncate(time.Second)
	return rotation.Record{Connection: c, Status: rotation.Active, Epoch: 1, Generation: generation, Published: "v",
		RotatedAt: saved, DueAt: saved.Add(time.Hour),
		Current: &rotation.Current{Response: rotation.ResponseKey{Epoch: 1, Generation: generation, Attempt: "a"},
			VersionID: "v",
			SavedAt:   saved, IssuedAt: saved, ExpiresAt: saved.Add(90 * time.Minute), Lifetime: 5400},
		Pin: &rotation.Pin{Environment: c.Environment, ResourceOwner: "17", Login: "pat@example.com", Company: "4264807"}}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do makes a request. change may adapt it, which a browser's page cannot always do.
func (s *site) do(method, path string, form url.Values, change func(*http.Request)) answer {
	s.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.server.URL+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(r)
	}
	got, err := s.browser.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{got.StatusCode, got.Header, string(text)}
}

func (s *site) get(path string) answer { s.t.Helper(); return s.do("GET", path, nil, nil) }

var csrfForm = regexp.MustCompile(`name="csrf" value="([A-Za-z0-9_-]+)"`)

// csrf is the token in the forms of a page.
func (s *site) csrf() string {
	s.t.Helper()
	found := csrfForm.FindStringSubmatch(s.get("/").body)
	if found == nil {
		s.t.Fatal("no token in the forms of the page")
	}
	return found[1]
}

// post submits a form of the page, as a browser does.
func (s *site) post(path string, fields ...string) answer {
	s.t.Helper()
	form := url.Values{"csrf": {s.csrf()}}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return s.do("POST", path, form, func(r *http.Request) {
		r.Header.Set("Origin", s.server.URL)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	})
}

// recorder is the actions of a test: it records them.
type recorder struct {
	mu   sync.Mutex
	done []string
	fail error
}

func (a *recorder) act(name string, c token.Connection) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = append(a.done, name+" "+c.String())
	return name + " is done.", a.fail
}

func (a *recorder) did() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.done...)
}

func (a *recorder) Rotate(_ context.Context, c token.Connection) (string, error) {
	return a.act("rotate", c)
}
func (a *recorder) Release(_ context.Context, c token.Connection, refresh token.Secret) (string, error) {
	return a.act("release with "+refresh.Reveal()+" of", c)
}
func (a *recorder) Discard(_ context.Context, c token.Connection) (string, error) {
	return a.act("discard", c)
}
func (a *recorder) Disconnect(_ context.Context, c token.Connection) (string, error) {
	return a.act("disconnect", c)
}
func (a *recorder) Invite(_ context.Context, c token.Connection) (token.Secret, time.Time, error) {
	_, err := a.act("invite", c)
	return token.NewSecret("http://localhost:8080/connect/" + canary + "LINK"), time.Now().Add(time.Hour), err
}

// lockedBuffer is a log that may be read meanwhile.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func mustContain(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, withoutStyle(text))
		}
	}
}

// withoutStyle shortens a page for a message.
func withoutStyle(page string) string {
	if _, after, found := strings.Cut(page, "</style>"); found {
		return after
	}
	return page
}

func mustNotContain(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%q is in:\n%s", part, withoutStyle(text))
		}
	}
}

// thousand stores 1,000 connections with texts of a realistic length.
func (s *site) thousand() {
	s.t.Helper()
	for i := range 1000 {
		rec := active(token.Connection{Environment: "production", Name: fmt.Sprintf("northwind-general-%04d", i)}, int64(i))
		rec.Pin.Login = fmt.Sprintf("alexandra.henriksen-%04d@northwind-construction.example", i)
		s.put(rec)
	}
}
