package consent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	publicURL = "https://tokens.example.com"
	loginURL  = "https://login-sandbox.example.net"
)

var acme = token.Connection{Environment: "sandbox", Name: "acme"}

// server is a Handler on real stores, with an authorization server of its own.
type server struct {
	t       testing.TB
	handler *consent.Handler
	store   *watched
	files   *embedded.Store
	issuer  *issuer
	apps    applications
	clock   *clock
	log     *lockedBuffer
	public  string
	// These are set before build.
	organization  string
	observer      consent.Observer
	faces         func(ctx context.Context, environment string) (consent.Face, error)
	facesRead     int
	returnOrigins []string
	returnURL     string // of invitations that are made from now on
	mu            sync.Mutex
	secrets       []string // must not be in the log
}

func newServer(t testing.TB) *server { return newServerAt(t, publicURL) }

func newServerAt(t testing.TB, public string) *server {
	t.Helper()
	files, err := embedded.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, files: files, store: &watched{Store: files.Consents(), calls: map[string]int{}}, clock: &clock{
		now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}, log: &lockedBuffer{}, public: public, apps: applications{}}
	t.Cleanup(func() {
		if err := files.Close(); err != nil {
			t.Error(err)
		}
		s.checkLog()
	})
	for _, environment := range []string{"sandbox", "production"} {
		s.apps[environment] = rotation.Application{Environment: environment, ClientID: "client-of-" + environment,
			ClientSecret: token.NewSecret("canary-client-secret"), RedirectURI: public + "/callback/" + environment,
			LoginURL: loginURL, APIURL: "https://api.example.net"}
	}
	s.secrets = []string{"canary-client-secret"}
	s.issuer = &issuer{server: s, codes: map[string]url.Values{}, identity: rotation.Identity{
		ClientID: "client-of-sandbox", ResourceOwner: "42", Login: "pat@example.com"}}
	s.register(acme)
	s.build()
	return s
}

func (s *server) register(c token.Connection) {
	s.t.Helper()
	if _, err := rotation.Register(context.Background(), s.files.Ledger(), s.files.SecretStore(), "test", c); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) build() {
	s.t.Helper()
	log := s.logger()
	consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: s.files.Ledger(), Sealer: s.files.Sealer(),
		Applications: s.apps, Issuer: s.issuer, Log: log, Now: s.clock.Now, Settings: rotation.DefaultSettings("test")})
	if err != nil {
		s.t.Fatal(err)
	}
	s.handler, err = consent.New(consent.Config{Store: s.store, Consents: consents, Applications: s.apps,
		AuthorizeURL: authorizeURL, PublicURL: s.public, Organization: s.organization, Observer: s.observer, Faces: s.faces,
		ReturnOrigins: s.returnOrigins, Logger: log, Now: s.clock.Now})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func authorizeURL(app rotation.Application, redirectURI, state, codeChallenge string) string {
	return app.LoginURL + "/oauth/authorize?" + url.Values{"response_type": {"code"}, "client_id": {app.ClientID},
		"redirect_uri": {redirectURI}, "state": {state}, "code_challenge": {codeChallenge},
		"code_challenge_method": {"S256"}}.Encode()
}

// invite makes a link and returns its path.
func (s *server) invite(expect rotation.Identity) (path, hash string) {
	s.t.Helper()
	return s.inviteTo(acme, expect)
}

func (s *server) inviteTo(c token.Connection, expect rotation.Identity) (path, hash string) {
	s.t.Helper()
	rec, _, err := s.files.Ledger().Load(context.Background(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	link, made, err := invitations.New(context.Background(), s.store.Store, s.public,
		invitations.Invitation{Connection: c, Expect: expect, Epoch: rec.Epoch, ReturnURL: s.returnURL,
			CreatedAt: s.clock.Now()})
	if err != nil {
		s.t.Fatal(err)
	}
	path, ok := strings.CutPrefix(link.Reveal(), s.public)
	if !ok {
		s.t.Fatalf("the link does not begin with %s", s.public)
	}
	s.keepSecret(strings.TrimPrefix(path, "/connect/"))
	return path, made.Hash
}

func (s *server) keepSecret(texts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, texts...)
}

func (s *server) checkLog() {
	text := s.log.String()
	for _, secret := range s.secrets {
		if secret != "" && strings.Contains(text, secret) {
			s.t.Errorf("a secret is in the log:\n%s", text)
		}
	}
}

// invitation reads the stored invitation.
func (s *server) invitation(hash string) invitations.Invitation {
	s.t.Helper()
	i, err := s.store.Store.Invitation(context.Background(), hash)
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

func (s *server) record() rotation.Record {
	s.t.Helper()
	rec, _, err := s.files.Ledger().Load(context.Background(), acme)
	if err != nil {
		s.t.Fatal(err)
	}
	return rec
}

// browser sends requests as a person's browser would, and keeps cookies.
type browser struct {
	server  *server
	cookies []*http.Cookie
}

func (s *server) browser() *browser { return &browser{server: s} }

// do sends one request. target is a path or one of the server's own addresses.
func (b *browser) do(method, target string, change ...func(*http.Request)) *http.Response {
	b.server.t.Helper()
	r := httptest.NewRequestWithContext(context.Background(), method, b.server.public+strings.TrimPrefix(target,
		b.server.public), nil)
	for _, c := range b.cookies {
		r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
	}
	if method == http.MethodPost { // what a browser sends from a page with no-referrer
		r.Header.Set("Origin", "null")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	b.server.handler.ServeHTTP(w, r)
	answer := w.Result()
	for _, c := range answer.Cookies() {
		b.cookies = slices.DeleteFunc(b.cookies, func(old *http.Cookie) bool { return old.Name == c.Name })
		b.cookies = append(b.cookies, c)
		b.server.keepSecret(c.Value)
	}
	return answer
}

// start presses the button and returns the authorization request.
func (b *browser) start(path string) url.Values {
	b.server.t.Helper()
	answer := b.do(http.MethodPost, path)
	if answer.StatusCode != http.StatusSeeOther {
		b.server.t.Fatalf("POST answered %d: %s", answer.StatusCode, body(b.server.t, answer))
	}
	address, err := answer.Location()
	if err != nil || !strings.HasPrefix(address.String(), loginURL+"/oauth/authorize?") {
		b.server.t.Fatalf("POST redirects to %v, %v", address, err)
	}
	b.server.keepSecret(address.Query().Get("state"))
	return address.Query()
}

// allow starts, consents, and returns the path and query of the callback.
func (b *browser) allow(path string) string {
	b.server.t.Helper()
	request := b.start(path)
	return callback(url.Values{"code": {b.server.issuer.consent(request)}, "state": request["state"]})
}

func callback(values url.Values) string { return "/callback/sandbox?" + values.Encode() }

func body(t testing.TB, answer *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// title returns the heading of the page; tests distinguish pages by it.
func title(t testing.TB, page string) string {
	t.Helper()
	_, rest, _ := strings.Cut(page, "<h1>")
	text, _, found := strings.Cut(rest, "</h1>")
	if !found {
		t.Fatalf("no heading in %q", page)
	}
	return text
}

// want checks the answer's status and page.
func want(t testing.TB, answer *http.Response, status int, heading string) (page string) {
	t.Helper()
	page = body(t, answer)
	if answer.StatusCode != status {
		t.Errorf("status %d, want %d", answer.StatusCode, status)
	}
	if got := title(t, page); got != heading {
		t.Errorf("page %q, want %q", got, heading)
	}
	return page
}

// wantResult checks the redirect and the page behind it, twice as after a reload.
func (b *browser) wantResult(answer *http.Response, heading string) (page string) {
	t := b.server.t
	t.Helper()
	if answer.StatusCode != http.StatusSeeOther || body(t, answer) != "" {
		t.Fatalf("status %d, want a bare 303", answer.StatusCode)
	}
	address := answer.Header.Get("Location")
	if !strings.HasPrefix(address, b.server.public+"/") {
		t.Errorf("redirected to %q", address)
	}
	page = want(t, b.do(http.MethodGet, address), http.StatusOK, heading)
	if again := want(t, b.do(http.MethodGet, address), http.StatusOK, heading); again != page {
		t.Error("reloading the result shows another page")
	}
	return page
}

// issuer is an authorization server that knows single-use codes and PKCE.
type issuer struct {
	server   *server
	mu       sync.Mutex
	codes    map[string]url.Values // code: authorization request
	redeems  int
	during   func()          // runs within Redeem
	answer   rotation.Answer // instead of a new pair
	given    rotation.Answer // the last new pair
	identity rotation.Identity
	fault    error // of Identify
	revoked  int
}

var _ rotation.Issuer = (*issuer)(nil)

// consent is the person's click on Allow.
func (i *issuer) consent(request url.Values) (code string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	code = fmt.Sprintf("canary-code-%d", len(i.codes))
	i.codes[code] = request
	i.server.keepSecret(code)
	return code
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.redeems
}

func (i *issuer) Redeem(_ context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.redeems++
	if i.during != nil {
		i.during()
	}
	if i.answer.Class != "" {
		return i.answer
	}
	request, found := i.codes[grant.Code.Reveal()]
	delete(i.codes, grant.Code.Reveal())
	sum := sha256.Sum256([]byte(grant.Verifier.Reveal()))
	if !found || request.Get("redirect_uri") != grant.RedirectURI || request.Get("client_id") != app.ClientID ||
		request.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || len(grant.Verifier.Reveal()) < 43 {
		return rotation.Answer{Class: rotation.Refused, Detail: "invalid_grant"}
	}
	access, refresh := fmt.Sprintf("canary-access-%d", i.redeems), fmt.Sprintf("canary-refresh-%d", i.redeems)
	i.server.keepSecret(access, refresh)
	text, _ := json.Marshal(map[string]any{"access_token": access, "refresh_token": refresh})
	i.given = rotation.Answer{Class: rotation.Captured, Body: token.NewSecret(string(text))}
	return i.given
}

func (i *issuer) Parse(body token.Secret) rotation.Judgement {
	var pair struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if json.Unmarshal([]byte(body.Reveal()), &pair) != nil {
		return rotation.Judgement{Verdict: rotation.Empty, Reason: "not JSON"}
	}
	return rotation.Judgement{Verdict: rotation.Sound, Pair: token.Pair{AccessToken: token.NewSecret(pair.Access),
		RefreshToken: token.NewSecret(pair.Refresh), TokenType: "Bearer", Lifetime: 90 * time.Minute}}
}

func (i *issuer) Identify(context.Context, rotation.Application, token.Secret, string) (rotation.Identity, error) {
	return i.identity, i.fault
}

func (i *issuer) Revoke(context.Context, rotation.Application, token.Secret) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.revoked++
	return nil
}

// applications are app credentials in memory.
type applications map[string]rotation.Application

func (a applications) Application(_ context.Context, environment string) (rotation.Application, error) {
	app, found := a[environment]
	if !found {
		return rotation.Application{}, fmt.Errorf("%s: %w", environment, rotation.ErrNoApplication)
	}
	return app, nil
}

var errStoreDown = errors.New("the store is down")

// watched counts the calls of a store and can refuse them.
type watched struct {
	invitations.Store
	mu    sync.Mutex
	calls map[string]int
	down  map[string]bool   // calls that fail without effect
	lost  map[string]bool   // calls that take effect and still fail
	ahead map[string]func() // runs before a call
}

// through makes a call of the store, or fails it.
func through[T any](w *watched, call string, do func() (T, error)) (T, error) {
	w.mu.Lock()
	w.calls[call]++
	down, lost, ahead := w.down[call], w.lost[call], w.ahead[call]
	w.mu.Unlock()
	if ahead != nil {
		ahead()
	}
	var none T
	if down {
		return none, errStoreDown
	}
	v, err := do()
	if lost {
		return none, errStoreDown
	}
	return v, err
}

// made returns the calls that happened and resets the list.
func (w *watched) made() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := slices.Sorted(maps.Keys(w.calls))
	clear(w.calls)
	return strings.Join(names, " ")
}

func (w *watched) Invitation(ctx context.Context, hash string) (invitations.Invitation, error) {
	return through(w, "Invitation", func() (invitations.Invitation, error) { return w.Store.Invitation(ctx, hash) })
}

func (w *watched) Start(ctx context.Context, s invitations.State) error {
	_, err := through(w, "Start", func() (struct{}, error) { return struct{}{}, w.Store.Start(ctx, s) })
	return err
}

func (w *watched) State(ctx context.Context, hash string) (invitations.State, error) {
	return through(w, "State", func() (invitations.State, error) { return w.Store.State(ctx, hash) })
}

func (w *watched) Consume(ctx context.Context, hash, cookie, environment, nonce string,
	now time.Time) (invitations.State, error) {
	return through(w, "Consume", func() (invitations.State, error) {
		return w.Store.Consume(ctx, hash, cookie, environment, nonce, now)
	})
}

func (w *watched) Conclude(ctx context.Context, s invitations.State, result string, used bool, now time.Time) error {
	_, err := through(w, "Conclude", func() (struct{}, error) {
		return struct{}{}, w.Store.Conclude(ctx, s, result, used,
			now)
	})
	return err
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// brokenStore refuses every invitation.
type brokenStore struct{ invitations.Store }

func (brokenStore) CreateInvitation(context.Context, invitations.Invitation) error {
	return errStoreDown
}
