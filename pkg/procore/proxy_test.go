package procore

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// originVariable gives a child process of TestNoProxy the login host's address.
const originVariable = "TOKENTURN_TEST_ORIGIN"

// namedHost is the host that the child asks for. It has a name, because net/http
// uses no proxy for loopback addresses.
const namedHost = "login.example.com:80"

// net/http reads the proxy variables once in a process, so they are set for a
// process of its own. Its secrets must reach their own host and not the proxy. An
// ordinary request shows that the proxy is in effect there.
func TestNoProxy(t *testing.T) {
	if origin := os.Getenv(originVariable); origin != "" {
		askWithoutProxy(t, origin)
		return
	}
	var atProxy, atOrigin paths
	proxy := httptest.NewServer(&atProxy)
	defer proxy.Close()
	origin := httptest.NewServer(&atOrigin)
	defer origin.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoProxy$", "-test.v")
	cmd.Env = append(os.Environ(), originVariable+"="+origin.Listener.Addr().String(), "NO_PROXY=", "no_proxy=")
	for _, name := range proxyVariables {
		cmd.Env = append(cmd.Env, name+"="+proxy.URL)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNoProxy") {
		t.Fatalf("the child process: %v\n%s", err, out)
	}
	if got := atProxy.all(); !slices.Equal(got, []string{"/control"}) {
		t.Errorf("at the proxy arrived %q", got)
	}
	want := []string{"/", "/oauth/revoke", "/oauth/token", "/oauth/token/info", "/rest/v1.0/me"}
	if got := atOrigin.all(); !slices.Equal(got, want) {
		t.Errorf("at the host arrived %q, want %q", got, want)
	}
}

// paths is a server that records the requested paths.
type paths struct {
	mu    sync.Mutex
	asked []string
}

func (p *paths) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, r.URL.Path)
	_, _ = io.WriteString(w, `{"application":{"uid":"id-1"}}`)
}

func (p *paths) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(slices.Values(p.asked))
}

// askWithoutProxy sends each kind of request to namedHost, which is at origin,
// and an ordinary one.
func askWithoutProxy(t *testing.T, origin string) {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == namedHost {
			address = origin
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	issuer := New(Config{RedeemTimeout: 10 * time.Second})
	defer issuer.CloseIdleConnections()
	issuer.tokens.DialContext, issuer.asking.DialContext = dial, dial
	app := testApp("http://" + strings.TrimSuffix(namedHost, ":80"))
	if got := issuer.Redeem(t.Context(), app, refreshGrant); got.Class != rotation.Captured {
		t.Errorf("redeem: %+v", got)
	}
	if _, err := issuer.Identify(t.Context(), app, token.NewSecret("canary"), ""); err != nil {
		t.Errorf("identify: %v", err)
	}
	if err := issuer.Revoke(t.Context(), app, token.NewSecret("canary")); err != nil {
		t.Errorf("revoke: %v", err)
	}
	if _, err := issuer.ServerTime(t.Context(), app); err != nil {
		t.Errorf("time: %v", err)
	}
	ordinary := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dial, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, app.LoginURL+"/control", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := ordinary.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// noProxies clears the proxy variables of the machine.
func noProxies(t *testing.T) {
	for _, name := range proxyVariables {
		t.Setenv(name, "")
	}
}

// Where a host cannot be reached and a proxy variable is set, the message says
// that the proxy is not used.
func TestAnIgnoredProxyIsNamed(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	app := testApp("http://" + closed.Addr().String())
	const refused, hint = "connection refused", " (HTTPS_PROXY is set, but tokenturn does not use it: " +
		"secrets go to this host directly; to reach it through a proxy, set TOKENTURN_PROXY)"
	for variable, want := range map[string]string{"": refused, "HTTPS_PROXY": refused + hint,
		"all_proxy": refused + strings.Replace(hint, "HTTPS_PROXY", "all_proxy", 1)} {
		t.Run(variable, func(t *testing.T) {
			noProxies(t)
			if variable != "" {
				t.Setenv(variable, "http://canary:canary@127.0.0.1:1")
			}
			issuer := New(Config{RedeemTimeout: 5 * time.Second})
			got := issuer.Redeem(t.Context(), app, refreshGrant)
			if got.Class != rotation.NotSent || got.Detail != "not sent: "+want {
				t.Errorf("got %+v", got)
			}
			_, err := issuer.Identify(t.Context(), app, token.NewSecret("canary"), "")
			if err == nil || !strings.HasSuffix(err.Error(), ": "+want) {
				t.Errorf("got %v", err)
			}
			noCanary(t, got, err)
		})
	}
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	reached := httptest.NewTLSServer(http.NotFoundHandler())
	reached.Config.ErrorLog = discard()
	defer reached.Close()
	got := New(Config{}).Redeem(t.Context(), testApp(reached.URL), refreshGrant)
	if got.Class != rotation.NotSent || strings.Contains(got.Detail, "PROXY") {
		t.Errorf("a host that was reached: %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := New(Config{}).Redeem(ctx, app, refreshGrant); got.Detail != "not sent: cancelled" {
		t.Errorf("cancelled: %+v", got)
	}
}
