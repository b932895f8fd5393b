//go:build conformance

package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// A real Chromium connects through the callback server: see ../browser. With the
// stand-in every page is shown, Doorkeeper is a provider that this project did not
// write, and over TLS there is a single sign-on at a host of its own.
func TestConsentInABrowser(t *testing.T) {
	t.Parallel()
	t.Run("stand-in", func(t *testing.T) {
		s := newStandInSite(t)
		s.serve(s.proxy.URL, func(public string) procoretest.App {
			s.app = s.NewApp(public + "/callback/demo")
			return s.app
		})
		s.screens = screens(t, "consent")
		s.visit("stand-in", s.proxy.URL)
	})
	t.Run("doorkeeper", func(t *testing.T) {
		s := newSite(t)
		port := freePort(t)
		p := doorkeeper(t, "http://localhost:"+port+"/callback/demo")
		s.serveAt(port, p.url, func(string) procoretest.App {
			return procoretest.App{ClientID: p.clientID, ClientSecret: token.NewSecret(p.clientSecret)}
		})
		s.control["reset"] = func(question) (any, error) { return struct{}{}, post(p.url + "/_test/reset") }
		s.control["exchanges"] = func(question) (any, error) { return map[string]int{"count": len(p.issued().Tokens)}, nil }
		s.control["consent"] = func(q question) (any, error) {
			out, err := exec.Command("../peers/doorkeeper/drive", "consent", p.url, q.URL).Output()
			return map[string]string{"url": strings.TrimSpace(string(out))}, err
		}
		s.visit("doorkeeper", p.url)
	})
	t.Run("https", func(t *testing.T) {
		s := newStandInSite(t)
		s.overTLS()
		s.visit("https", s.login, s.sso)
	})
}

// question is what the browser's test may ask.
type question struct {
	Connection string   `json:"connection"`
	Options    []string `json:"options"`
	URL        string   `json:"url"`
	How        string   `json:"how"`
}

// site is a callback server, what is behind it, and the answers to the browser's test.
type site struct {
	t         *testing.T
	data      string
	publicURL string
	screens   string
	log       *lockedBuffer
	links     []string
	environ   []string // of the command and the server, beyond those of this process
	program   string   // address of the program that people are led back to
	control   map[string]func(question) (any, error)
}

func newSite(t *testing.T) *site {
	s := &site{t: t, data: t.TempDir(), log: &lockedBuffer{}}
	s.control = map[string]func(question) (any, error){
		"invite": func(q question) (any, error) {
			out, err := s.operate(append([]string{"connection", "invite", q.Connection, "--public-url", s.publicURL},
				q.Options...)...)
			var answer struct {
				URL string `json:"url"`
			}
			err = errors.Join(err, json.Unmarshal(out, &answer))
			s.links = append(s.links, answer.URL)
			return answer, err
		},
		"revoke": func(q question) (any, error) {
			out, err := s.operate("invitation", "list")
			var list []struct{ ID, Connection string }
			err = errors.Join(err, json.Unmarshal(out, &list))
			for _, i := range list {
				if i.Connection == q.Connection {
					_, revokeErr := s.operate("invitation", "revoke", i.ID)
					err = errors.Join(err, revokeErr)
				}
			}
			return struct{}{}, err
		},
		"disconnect": func(q question) (any, error) {
			_, err := s.operate("connection", "disconnect", q.Connection, "--yes")
			return struct{}{}, err
		},
		"face": func(question) (any, error) {
			logo := filepath.Join(t.TempDir(), "logo.svg")
			if err := os.WriteFile(logo, []byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">`+
				`<rect width="64" height="64" rx="12" fill="#e4572e"/><path d="M14 48L32 14l18 34h-9l-9-18-9 18z" fill="#fff"/>`+
				`</svg>`), 0o600); err != nil {
				return nil, err
			}
			_, err := s.operate("app", "set", "demo", "--name", "Acme Integrations for Project Controls", "--logo", logo)
			return struct{}{}, err
		},
		"log": func(question) (any, error) { return map[string]string{"text": s.log.String()}, nil },
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the callback server wrote:\n%s", s.log.tail(4000))
		}
		for _, link := range s.links {
			if strings.Contains(s.log.String(), link[strings.LastIndex(link, "/")+1:]) {
				t.Error("a link is in the log")
			}
		}
	})
	return s
}

// operate runs the tokenturn command on the store of the site.
func (s *site) operate(arguments ...string) ([]byte, error) {
	return s.run(nil, arguments...)
}

func (s *site) run(stdin []byte, arguments ...string) ([]byte, error) {
	cmd := exec.CommandContext(s.t.Context(), built(s.t, buildCommand), append([]string{"--data", s.data, "--json"},
		arguments...)...)
	cmd.Stdin, cmd.Env = strings.NewReader(string(stdin)), append(os.Environ(), s.environ...)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("tokenturn %q: %w: %s", arguments, err, exit.Stderr)
	}
	return out, err
}

// freePort is one for a server that is started later. It lies below those that the kernel
// assigns by itself (32768 and up), so no other process takes it meanwhile by chance.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		if listener, err := net.Listen("tcp", "localhost:"+port); err == nil {
			_ = listener.Close()
			return port
		}
	}
	t.Fatal("no free port between 20000 and 32000")
	return ""
}

func (s *site) serve(providerURL string, app func(publicURL string) procoretest.App) {
	s.t.Helper()
	s.serveAt(freePort(s.t), providerURL, app)
}

// serveAt stores app credentials and runs `tokenturn serve` until the test ends.
func (s *site) serveAt(port, providerURL string, register func(publicURL string) procoretest.App) {
	t := s.t
	t.Helper()
	s.publicURL = "http://localhost:" + port
	app := register(s.publicURL)
	credentials, _ := json.Marshal(map[string]string{"client_id": app.ClientID, "client_secret": app.ClientSecret.Reveal(),
		"redirect_uri": s.publicURL + "/callback/demo", "login_url": providerURL, "api_url": providerURL})
	if _, err := s.run(credentials, "app", "set", "demo", "--stdin"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(built(t, buildCommand), "--data", s.data, "serve", "--addr", "localhost:"+port, "--organization",
		"Acme Builders")
	cmd.Stdout, cmd.Stderr, cmd.Env = s.log, s.log, append(os.Environ(), s.environ...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case err := <-exited:
			if err != nil {
				t.Errorf("tokenturn serve: %v", err)
			}
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			t.Error("tokenturn serve did not stop")
		}
	})
	// Another process: its log is all there is to wait for.
	for end := time.Now().Add(time.Minute); !strings.Contains(s.log.String(),
		"Serving http"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("tokenturn serve did not come up:\n%s", s.log.String())
		}
	}
}

// visit runs the browser's test. providers are the origins that a person may be
// sent to.
func (s *site) visit(kind string, providers ...string) {
	t := s.t
	t.Helper()
	s.browse("consent.mjs", map[string]any{"kind": kind, "pages": pageNames(t), "providers": providers,
		"program": s.program})
}

// browse runs a script of the browser with what it has to know of the site, and more.
func (s *site) browse(script string, more map[string]any) {
	s.t.Helper()
	control := httptest.NewServer(http.HandlerFunc(s.answer))
	defer control.Close()
	world := map[string]any{"control": control.URL, "publicURL": s.publicURL, "screens": s.screens}
	maps.Copy(world, more)
	browse(s.t, script, 8*time.Minute, world, s.log)
}

// browse runs a script of ../browser, and logs what it has shown. log is what the server has written.
func browse(t *testing.T, script string, limit time.Duration, world map[string]any, log *lockedBuffer) {
	t.Helper()
	user := procoretest.DefaultUser()
	maps.Copy(world, map[string]any{"login": user.Login, "password": user.Password})
	encoded, err := json.Marshal(world)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../browser/run", script)
	cmd.Env = append(os.Environ(), "WORLD="+string(encoded))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\nthe server wrote:\n%s", err, out, log.tail(4000))
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "✔") || strings.HasPrefix(line, "ℹ pass") || strings.HasPrefix(line, "figure: ") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

func (s *site) answer(w http.ResponseWriter, r *http.Request) {
	var q question
	answer, known := s.control[strings.TrimPrefix(r.URL.Path, "/")]
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || !known {
		http.Error(w, "no such question", http.StatusNotFound)
		return
	}
	a, err := answer(q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(a)
}

// pageNames are the pages that there are.
func pageNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../../pkg/consent/pages/*.html")
	if err != nil || len(files) < 10 {
		t.Fatalf("pages %v, %v", files, err)
	}
	var names []string
	for _, file := range files {
		if name := strings.TrimSuffix(filepath.Base(file), ".html"); name != "frame" {
			names = append(names, name)
		}
	}
	return names
}

// screens is the empty folder for screenshots.
func screens(t *testing.T, name string) string {
	t.Helper()
	dir, err := filepath.Abs("../../../build/screens/" + name)
	if err == nil {
		err = errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func post(address string) error {
	answer, err := http.Post(address, "application/x-www-form-urlencoded", nil)
	if err == nil {
		err = answer.Body.Close()
	}
	return err
}

// doorkeeper is a running one at which people must sign in themselves.
func doorkeeper(t *testing.T, redirectURI string) *provider {
	t.Helper()
	const ready = "ready "
	lines := startPeer(t, "../peers/doorkeeper/start", ready, "--redirect-uri", redirectURI, "--threads", "16")
	p := &provider{t: t, url: strings.TrimPrefix(lines[len(lines)-1], ready)}
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "info "); ok {
			var info struct {
				Web struct {
					ClientID     string `json:"client_id"`
					ClientSecret string `json:"client_secret"`
				} `json:"web"`
			}
			if err := json.Unmarshal([]byte(text), &info); err != nil {
				t.Fatal(err)
			}
			p.clientID, p.clientSecret = info.Web.ClientID, info.Web.ClientSecret
		}
	}
	return p
}

// standInSite is a site with the stand-in, which misbehaves on command.
type standInSite struct {
	*site
	*procoretest.Handler
	proxy   *httptest.Server // the stand-in
	silent  atomic.Bool      // does not answer token info
	release chan struct{}
	granted int // exchanges before the last reset

	app        procoretest.App
	login, sso string // origins over TLS
}

func newStandInSite(t *testing.T) *standInSite {
	s := &standInSite{site: newSite(t), Handler: procoretest.NewHandler()}
	s.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.silent.Load() && r.URL.Path == "/oauth/token/info" {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
		s.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(s.proxy.Close)
	s.returns()
	s.control["reset"] = func(question) (any, error) {
		s.granted = s.exchanges()
		return struct{}{}, nil
	}
	s.control["exchanges"] = func(question) (any, error) { return map[string]int{"count": s.exchanges() - s.granted}, nil }
	s.control["consent"] = func(q question) (any, error) {
		back, err := s.Consent(q.URL, procoretest.DefaultUser().Login, true)
		return map[string]string{"url": back}, err
	}
	s.control["spoil"] = func(q question) (any, error) {
		s.silent.Store(q.How == "silent")
		company := procoretest.DefaultUser().Companies[0]
		s.Install(s.app.ClientID, company)
		switch q.How {
		case "uninstalled":
			s.Uninstall(s.app.ClientID, company)
		case "lost":
			s.Script(procoretest.Lost())
		case "busy":
			s.Script(procoretest.TooManyRequests(time.Second))
		case "held":
			s.release = make(chan struct{})
			s.Script(procoretest.Blocked(s.release))
		}
		return struct{}{}, nil
	}
	s.control["held"] = func(question) (any, error) { // once the answer is being kept back
		// The function under test is another process, and the browser that asks a third.
		for end := time.Now().Add(20 * time.Second); s.exchanges() == s.granted; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				return nil, errors.New("nothing is presented")
			}
		}
		return struct{}{}, nil
	}
	s.control["release"] = func(question) (any, error) {
		close(s.release)
		return struct{}{}, nil
	}
	return s
}

// returns starts the program that people are led back to, with their results in the query.
func (s *standInSite) returns() {
	var mu sync.Mutex
	var came []url.Values
	program := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/done" {
			http.NotFound(w, r) // the browser asks for an icon, too
			return
		}
		mu.Lock()
		defer mu.Unlock()
		came = append(came, r.URL.Query())
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!DOCTYPE html><title>Back</title><h1>Back in the program</h1>")
	}))
	s.t.Cleanup(program.Close)
	s.program, s.environ = program.URL, append(s.environ, "TOKENTURN_RETURN_ORIGINS="+program.URL)
	s.control["came back"] = func(question) (any, error) { // since the last question
		mu.Lock()
		defer mu.Unlock()
		all := came
		came = nil
		return all, nil
	}
}

// exchanges counts every code that arrived at the token endpoint.
func (s *standInSite) exchanges() (n int) {
	for _, p := range s.Presentations() {
		if p.Grant == "authorization_code" {
			n++
		}
	}
	return n
}

// overTLS serves the site within this process at https://tokens.test. The
// stand-in is https://login.test, which sends people through https://sso.test
// first. Headers that browsers before 2023 do not send are removed.
func (s *standInSite) overTLS() {
	t := s.t
	var mu sync.Mutex
	var callback http.Handler
	signedOn := map[string]bool{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		host, _, _ := net.SplitHostPort(r.Host)
		for _, name := range []string{"Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-User"} {
			r.Header.Del(name)
		}
		switch state := r.URL.Query().Get("state"); {
		case host == "tokens.test":
			callback.ServeHTTP(w, r)
		case host == "sso.test":
			signedOn[state] = true
			http.Redirect(w, r, s.login+"/oauth/authorize?"+r.URL.RawQuery, http.StatusFound)
		case r.Method == http.MethodGet && r.URL.Path == "/oauth/authorize" && !signedOn[state]:
			http.Redirect(w, r, s.sso+"/saml?"+r.URL.RawQuery, http.StatusFound)
		default:
			s.Handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	s.publicURL, s.login, s.sso = "https://tokens.test:"+port, "https://login.test:"+port, "https://sso.test:"+port
	app := s.NewApp(s.publicURL + "/callback/demo")
	handler := s.inProcess(rotation.Application{Environment: "demo", ClientID: app.ClientID,
		ClientSecret: app.ClientSecret,
		RedirectURI:  app.RedirectURIs[0], LoginURL: s.login, APIURL: s.login})
	mu.Lock()
	callback = handler
	mu.Unlock()
	s.control["consent"] = func(q question) (any, error) { // past the single sign-on
		back, err := s.Consent(strings.Replace(q.URL, s.login, s.proxy.URL, 1), procoretest.DefaultUser().Login, true)
		return map[string]string{"url": back}, err
	}
}

// inProcess is a callback server in this process, with the operator's commands on its store.
func (s *standInSite) inProcess(app rotation.Application) http.Handler {
	t := s.t
	store, err := embedded.Open(t.Context(), s.data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	log := slog.New(slog.NewTextHandler(s.log, nil))
	settings := rotation.DefaultSettings("https")
	issuer := behind{procore.New(procore.Config{RedeemTimeout: settings.RedeemTimeout}), s.proxy.URL}
	consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: store.Ledger(), Sealer: store.Sealer(),
		Applications: only{app},
		Issuer:       issuer, Log: log, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := consent.New(consent.Config{Store: store.Consents(), Consents: consents, Applications: only{app},
		AuthorizeURL: procore.AuthorizeURL, PublicURL: s.publicURL, Organization: "Acme Builders", Logger: log,
		Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	s.control["invite"] = func(q question) (any, error) {
		wanted, err := invitationOf(q)
		if err != nil {
			return nil, err
		}
		rec, err := rotation.Register(t.Context(), store.Ledger(), store.SecretStore(), settings.Stack, wanted.Connection)
		if err != nil {
			return nil, err
		}
		wanted.Epoch = rec.Epoch
		link, _, err := invitations.New(t.Context(), store.Consents(), s.publicURL, wanted)
		s.links = append(s.links, link.Reveal())
		return map[string]string{"url": link.Reveal()}, err
	}
	s.control["revoke"] = func(q question) (any, error) {
		list, err := store.Consents().Invitations(t.Context(), time.Now())
		for _, i := range list {
			if i.Connection.String() == q.Connection {
				err = errors.Join(err, store.Consents().RevokeInvitation(t.Context(), i.Hash, time.Now()))
			}
		}
		return struct{}{}, err
	}
	s.control["disconnect"] = func(q question) (any, error) {
		rotator, err := rotation.NewRotator(rotation.Config{Ledger: store.Ledger(), SecretStore: store.SecretStore(),
			Sealer:       store.Sealer(),
			Applications: only{app}, Issuer: issuer, Log: log, Settings: settings})
		if err != nil {
			return nil, err
		}
		c, err := token.ParseConnection(q.Connection)
		if err != nil {
			return nil, err
		}
		_, err = rotator.Disconnect(t.Context(), c)
		return struct{}{}, err
	}
	return handler
}

// invitationOf reads the options of `connection invite` that the browser's test uses.
func invitationOf(q question) (invitations.Invitation, error) {
	c, err := token.ParseConnection(q.Connection)
	wanted := invitations.Invitation{Connection: c, CreatedAt: time.Now()}
	for pair := range slices.Chunk(q.Options, 2) {
		switch {
		case len(pair) == 2 && pair[0] == "--login":
			wanted.Expect.Login = pair[1]
		case len(pair) == 2 && pair[0] == "--expires":
			var life time.Duration
			life, parseErr := time.ParseDuration(pair[1])
			wanted.ExpiresAt, err = wanted.CreatedAt.Add(life), errors.Join(err, parseErr)
		default:
			err = errors.Join(err, fmt.Errorf("options %q", q.Options))
		}
	}
	return wanted, err
}

// behind is an issuer that reaches the stand-in at another address than browsers.
type behind struct {
	*procore.Issuer
	url string
}

func (b behind) at(app rotation.Application) rotation.Application {
	app.LoginURL, app.APIURL = b.url, b.url
	return app
}

func (b behind) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	return b.Issuer.Redeem(ctx, b.at(app), grant)
}

func (b behind) Identify(ctx context.Context, app rotation.Application, access token.Secret,
	company string) (rotation.Identity, error) {
	return b.Issuer.Identify(ctx, b.at(app), access, company)
}

func (b behind) Revoke(ctx context.Context, app rotation.Application, t token.Secret) error {
	return b.Issuer.Revoke(ctx, b.at(app), t)
}

// only is the app credentials of one environment.
type only struct{ app rotation.Application }

func (o only) Application(_ context.Context, environment string) (rotation.Application, error) {
	if environment != o.app.Environment {
		return rotation.Application{}, rotation.ErrNoApplication
	}
	return o.app, nil
}
