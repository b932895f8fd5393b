package procore

import (
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// tunnels is a proxy that connects every host to origin. A
// request without the password, if it wants one, gets 407.
type tunnels struct {
	paths
	origin   string
	password string // user:password@
}

func (p *tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, _ := url.Parse("http://" + p.password)
	want := http.Request{Header: http.Header{}}
	if p.password != "" {
		password, _ := user.User.Password()
		want.SetBasicAuth(user.User.Username(), password)
	}
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host)
	p.mu.Unlock()
	switch {
	case r.Header.Get("Proxy-Authorization") != want.Header.Get("Authorization"):
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	case r.Method != http.MethodConnect:
		w.WriteHeader(http.StatusTeapot)
		return
	}
	there, err := net.Dial("tcp", p.origin)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	here, buffered, _ := w.(http.Hijacker).Hijack()
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { _, _ = io.Copy(here, there); _ = here.Close() }()
	_, _ = io.Copy(there, buffered)
	_ = there.Close()
}

// throughProxy returns an Issuer that trusts origin's certificate.
func throughProxy(t *testing.T, proxy string, origin *httptest.Server) *Issuer {
	t.Helper()
	address, err := url.Parse(proxy)
	if err != nil {
		t.Fatal(err)
	}
	issuer := New(Config{RedeemTimeout: 10 * time.Second, Proxy: address})
	t.Cleanup(issuer.CloseIdleConnections)
	trusted := x509.NewCertPool()
	if origin != nil {
		trusted.AddCert(origin.Certificate())
	}
	issuer.tokens.TLSClientConfig.RootCAs, issuer.asking.TLSClientConfig.RootCAs = trusted, trusted
	return issuer
}

// With a proxy of its own, every request to a host goes through a tunnel, and the answer
// to a redeem means the same.
func TestProxyTunnelsEveryRequest(t *testing.T) {
	noProxies(t)
	var atOrigin paths
	origin := httptest.NewTLSServer(&atOrigin)
	defer origin.Close()
	through := &tunnels{origin: origin.Listener.Addr().String(), password: "me:canary-password@"}
	proxy := httptest.NewServer(through)
	defer proxy.Close()
	issuer := throughProxy(t, strings.Replace(proxy.URL, "http://", "http://"+through.password, 1), origin)
	app := testApp("https://login.example.com") // httptest has a certificate for it

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
	want := "/ /oauth/revoke /oauth/token /oauth/token/info /rest/v1.0/me"
	if got := strings.Join(atOrigin.all(), " "); got != want {
		t.Errorf("at the host arrived %q, want %q", got, want)
	}
	for _, asked := range through.all() {
		if asked != "CONNECT login.example.com:443" {
			t.Errorf("the proxy was asked %q", asked)
		}
	}
	if len(through.all()) < 2 { // a redeem reuses no connection
		t.Errorf("the proxy was asked %q", through.all())
	}
}

// http:// URLs, which are custom environments on this machine, and loopback addresses are
// reached directly: the proxy could read the one and does not know the other.
func TestProxyIsNotUsedOnLoopback(t *testing.T) {
	noProxies(t)
	through := &tunnels{}
	proxy := httptest.NewServer(through)
	defer proxy.Close()
	plain := httptest.NewServer(new(paths))
	defer plain.Close()
	encrypted := httptest.NewTLSServer(new(paths))
	defer encrypted.Close()
	for _, at := range []string{plain.URL, encrypted.URL} {
		if got := throughProxy(t, proxy.URL, encrypted).Redeem(t.Context(), testApp(at), refreshGrant); got.Class !=
			rotation.Captured {
			t.Errorf("%s: %+v", at, got)
		}
	}
	if got := through.all(); len(got) > 0 {
		t.Errorf("the proxy was asked %q", got)
	}
}

// What goes wrong at the proxy leaves the token unspent, and the message says where it
// went wrong, without the proxy's password.
func TestProxyThatFailsIsNamed(t *testing.T) {
	noProxies(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	through := &tunnels{origin: closed.Addr().String(), password: "me:canary-password@"}
	proxy := httptest.NewServer(through)
	defer proxy.Close()
	with := func(credentials string) string {
		return strings.Replace(proxy.URL, "http://", "http://"+credentials, 1)
	}
	const proxyOf, refuses = "the proxy of TOKENTURN_PROXY ", "refuses to connect to this host "
	for address, want := range map[string]string{
		"http://me:canary-password@" + closed.Addr().String(): proxyOf + "cannot be reached: connection refused",
		with("me:canary-wrong@"): proxyOf + refuses + "(HTTP 407): it wants a user name and a password, as in " +
			"http://user:password@host:port",
		with(through.password): proxyOf + refuses + "(HTTP 502)",
	} {
		issuer := throughProxy(t, address, nil)
		got := issuer.Redeem(t.Context(), testApp("https://login.example.com"), refreshGrant)
		if got.Class != rotation.NotSent || got.Detail != "not sent: "+want {
			t.Errorf("got %+v, want %q", got, want)
		}
		_, err := issuer.Identify(t.Context(), testApp("https://login.example.com"), token.NewSecret("canary"), "")
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("identify: %v, want %q", err, want)
		}
		noCanary(t, got, err)
	}
}
