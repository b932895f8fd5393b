package procore

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// raw is a server that counts connections and requests and answers each
// connection's requests with what the test writes.
type raw struct {
	url                   string
	connections, requests atomic.Int32
}

// listen serves every connection with serve, which returns to close it. next
// reads one whole request and its body.
func listen(t *testing.T, serve func(conn net.Conn, next func() (*http.Request, string, error))) *raw {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{url: "http://" + listener.Addr().String()}
	var running sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.connections.Add(1)
			running.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // no test hangs on a bug
				reader := bufio.NewReader(conn)
				serve(conn, func() (*http.Request, string, error) {
					req, err := http.ReadRequest(reader)
					if err != nil {
						return nil, "", err
					}
					r.requests.Add(1)
					body, err := io.ReadAll(req.Body)
					return req, string(body), err
				})
			})
		}
	})
	return r
}

func testApp(url string) rotation.Application {
	return rotation.Application{Environment: "sandbox", ClientID: "id-1", ClientSecret: token.NewSecret("canary-secret"),
		RedirectURI: OutOfBand, LoginURL: url, APIURL: url}
}

var (
	refreshGrant = rotation.Grant{RefreshToken: token.NewSecret("canary-old-refresh")}
	codeGrant    = rotation.Grant{Code: token.NewSecret("canary-code"), RedirectURI: "https://app.example.com/c",
		Verifier: token.NewSecret("canary-verifier")}
)

const answered = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"canary\":1}\r\n"

func TestRedeemRequest(t *testing.T) {
	for name, c := range map[string]struct {
		grant rotation.Grant
		want  string
	}{
		"refresh": {refreshGrant,
			`{"client_id":"id-1","client_secret":"canary-secret","grant_type":"refresh_token","refresh_token":"canary-old-refresh"}`},
		"code": {codeGrant,
			`{"client_id":"id-1","client_secret":"canary-secret","code":"canary-code","code_verifier":"canary-verifier",` +
				`"grant_type":"authorization_code","redirect_uri":"https://app.example.com/c"}`},
		"code without PKCE": {rotation.Grant{Code: codeGrant.Code, RedirectURI: OutOfBand},
			`{"client_id":"id-1","client_secret":"canary-secret",` +
				`"code":"canary-code","grant_type":"authorization_code","redirect_uri":"urn:ietf:wg:oauth:2.0:oob"}`},
	} {
		t.Run(name, func(t *testing.T) {
			server := listen(t, func(conn net.Conn, next func() (*http.Request, string, error)) {
				req, body, err := next()
				if err != nil {
					t.Error(err)
					return
				}
				if req.Method != "POST" || req.RequestURI != "/oauth/token" || req.Proto != "HTTP/1.1" || body != c.want {
					t.Errorf("%s %s %s\n%s", req.Method, req.RequestURI, req.Proto, body)
				}
				for header, want := range map[string]string{"Content-Type": "application/json", "Accept": "application/json",
					"Accept-Encoding": "identity",
					"User-Agent":      "tokenturn/1.2.3 (+https://github.com/tokenturn/tokenturn)", "Authorization": "",
					"Cookie": ""} {
					if got := req.Header.Get(header); got != want {
						t.Errorf("%s: %q", header, got)
					}
				}
				_, _ = io.WriteString(conn, answered)
			})
			got := New(Config{Version: "1.2.3"}).Redeem(t.Context(), testApp(server.url), c.grant)
			if got.Class != rotation.Captured || got.Body.Reveal() != "{\"canary\":1}\r\n" {
				t.Errorf("got %+v", got)
			}
			noCanary(t, got, c.grant)
		})
	}
}

func TestRedeemPresentsOneCredential(t *testing.T) {
	both := refreshGrant
	both.Code = codeGrant.Code
	own := refreshGrant
	own.ClientCredentials = true
	for _, grant := range []rotation.Grant{{}, both, own} {
		if got := New(Config{}).Redeem(t.Context(), testApp("http://127.0.0.1:1"), grant); got.Class != rotation.NotSent {
			t.Errorf("got %+v", got)
		}
	}
}

// What a server may do with a request, and what that means.
func TestRedeemFaults(t *testing.T) {
	type next = func() (*http.Request, string, error)
	say := func(text string) func(net.Conn, next) {
		return func(conn net.Conn, next next) {
			if _, _, err := next(); err == nil {
				_, _ = io.WriteString(conn, text)
			}
		}
	}
	// stall writes text and then nothing until the client has gone away.
	stall := func(text string) func(net.Conn, next) {
		return func(conn net.Conn, next next) {
			say(text)(conn, next)
			_, _ = io.Copy(io.Discard, conn)
		}
	}
	reset := func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) }
	const cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"refresh_token\":\"canary"
	const chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"canary\r\n"

	for name, c := range map[string]struct {
		serve  func(net.Conn, next)
		class  rotation.Class // empty: NotSent or UnknownResult
		body   string
		detail string
	}{
		"closed before reading": {func(net.Conn, next) {}, rotation.UnknownResult, "", ""},
		"reset before reading":  {func(conn net.Conn, _ next) { reset(conn) }, "", "", ""},
		"closed after reading": {say(""), rotation.UnknownResult, "",
			"sent, but no answer: the server closed the connection"},
		"reset after reading": {func(conn net.Conn, next next) { say("")(conn, next); reset(conn) },
			rotation.UnknownResult, "", "sent, but no answer: connection reset by peer"},
		"no answer": {stall(""), rotation.UnknownResult, "", "sent, but no answer: timed out"},
		"headers only": {stall("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n"), rotation.UnknownResult, "",
			"sent, but no answer: timed out"},
		"body cut off": {say(cut), rotation.Captured, `{"refresh_token":"canary`,
			"HTTP 200, body cut off after 24 bytes: the server closed the connection"},
		"body stalls": {stall(cut), rotation.Captured, `{"refresh_token":"canary`,
			"HTTP 200, body cut off after 24 bytes: timed out"},
		"chunked body cut off": {say(chunks), rotation.Captured, `{"canary`,
			"HTTP 200, body cut off after 8 bytes: the server closed the connection"},
		"chunk is none": {say(chunks + "canary\r\n"), rotation.Captured, `{"canary`,
			"HTTP 200, body cut off after 8 bytes: the connection failed or its answer is not HTTP"},
		"not HTTP": {say("canary {\"refresh_token\":\"canary\"}\r\n\r\n"), rotation.UnknownResult, "",
			"sent, but no answer: the connection failed or its answer is not HTTP"},
		"a header that is none": {say("HTTP/1.1 200 OK\r\ncanary\r\n\r\n"), rotation.UnknownResult, "",
			"sent, but no answer: the connection failed or its answer is not HTTP"},
		"endless headers": {say("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("canary", 20_000)), rotation.UnknownResult,
			"", "sent, but no answer: the connection failed or its answer is not HTTP"},
		"early hints": {say("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + answered), rotation.Captured,
			"{\"canary\":1}\r\n", "HTTP 200"},
		"switching protocols": {stall("HTTP/1.1 101 Switching Protocols\r\nUpgrade: canary\r\nConnection: Upgrade\r\n\r\n"),
			rotation.UnknownResult, "", "HTTP 101"},
		"temporary redirect": {say("HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"),
			rotation.OddRefusal, "", "HTTP 307"},
		"a proxy's error page": {say("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\ncanary"),
			rotation.UnknownResult, "", "HTTP 502"},
		"unavailable, asks to wait": {say("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"),
			rotation.UnknownResult, "", "HTTP 503"},
		"too much": {say("HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 2*maxBody)), rotation.Captured,
			strings.Repeat("x", maxBody),
			"HTTP 200, only the first 262144 bytes of the body were read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := listen(t, c.serve)
			began := time.Now()
			got := New(Config{RedeemTimeout: 2 * time.Second}).Redeem(t.Context(), testApp(server.url), refreshGrant)
			if c.class == "" { // connecting itself may fail, or succeed and the rest fail
				c.class = rotation.UnknownResult
				if got.Class == rotation.NotSent {
					c.class = rotation.NotSent
				}
			}
			if got.Class != c.class || got.Body.Reveal() != c.body || c.detail != "" && got.Detail != c.detail {
				t.Errorf("got %s, %q, body %.60q", got.Class, got.Detail, got.Body.Reveal())
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if n, m := server.connections.Load(), server.requests.Load(); n != 1 || m > 1 {
				t.Errorf("%d connections, %d requests", n, m)
			}
			noCanary(t, got)
		})
	}
}

// Nothing can have been presented without a connection.
func TestRedeemNotSent(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") })
	quiet := func(s *httptest.Server) *httptest.Server {
		s.Config.ErrorLog = discard()
		t.Cleanup(s.Close)
		return s
	}
	plain := quiet(httptest.NewServer(handler))
	strange := quiet(httptest.NewUnstartedServer(handler))
	strange.StartTLS()
	old := quiet(httptest.NewUnstartedServer(handler))
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.StartTLS()
	mute := listen(t, func(conn net.Conn, _ func() (*http.Request, string, error)) {
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second)) // net/http finishes the handshake even for nobody
		_, _ = io.Copy(io.Discard, conn)
	})

	noProxies(t)
	for name, c := range map[string]struct{ url, detail string }{
		"refused":               {"http://" + closed.Addr().String(), "not sent: connection refused"},
		"unknown host":          {"https://login.invalid", "not sent: the host name "},
		"untrusted certificate": {strange.URL, "not sent: TLS: the certificate is not trusted"},
		"no TLS": {"https" + strings.TrimPrefix(plain.URL, "http"),
			"not sent: TLS: the server does not speak TLS"},
		"TLS 1.1":                 {old.URL, "not sent: TLS: the handshake was refused"},
		"silent in the handshake": {"https" + strings.TrimPrefix(mute.url, "http"), "not sent: timed out"},
		"not a URL":               {"http://canary canary", "not sent: the URLs of the environment cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			got := New(Config{RedeemTimeout: time.Second}).Redeem(t.Context(), testApp(c.url), refreshGrant)
			if got.Class != rotation.NotSent || !strings.HasPrefix(got.Detail, c.detail) && got.Detail != "not sent: timed out" {
				t.Errorf("got %+v", got)
			}
			noCanary(t, got)
		})
	}
}

func TestRedeemCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := listen(t, func(conn net.Conn, next func() (*http.Request, string, error)) {
		if _, _, err := next(); err != nil {
			t.Error(err)
		}
		cancel()
		_, _ = io.Copy(io.Discard, conn)
	})
	if got := New(Config{}).Redeem(ctx, testApp(server.url), refreshGrant); got.Class != rotation.UnknownResult ||
		got.Detail != "sent, but no answer: cancelled" {
		t.Errorf("cancelled after sending: %+v", got)
	}
	if got := New(Config{}).Redeem(ctx, testApp(server.url), refreshGrant); got.Class != rotation.NotSent ||
		got.Detail != "not sent: cancelled" {
		t.Errorf("cancelled before: %+v", got)
	}
	if n := server.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// net/http repeats a request on a connection that was kept alive and died. The
// server here keeps each connection open, whatever the client wants, and is
// dead on every second request of one. The control shows that net/http would repeat one.
func TestRedeemOnceDespiteDeadConnections(t *testing.T) {
	trap := func(t *testing.T) *raw {
		return listen(t, func(conn net.Conn, next func() (*http.Request, string, error)) {
			if _, _, err := next(); err != nil {
				return
			}
			_, _ = io.WriteString(conn, strings.Replace(answered, "\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n", 1))
			_, _, _ = next()
		})
	}
	t.Run("control", func(t *testing.T) {
		server := trap(t)
		client := &http.Transport{}
		for range 2 {
			req, err := http.NewRequestWithContext(t.Context(), "PUT", server.url, strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Idempotency-Key", "1")
			resp, err := client.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		client.CloseIdleConnections()
		if n := server.requests.Load(); n != 3 {
			t.Errorf("%d requests for 2: this server is no trap", n)
		}
	})
	t.Run("redeem", func(t *testing.T) {
		server := trap(t)
		issuer := New(Config{})
		for range 5 {
			if got := issuer.Redeem(t.Context(), testApp(server.url), refreshGrant); got.Class != rotation.Captured {
				t.Errorf("got %+v", got)
			}
		}
		if n, m := server.requests.Load(), server.connections.Load(); n != 5 || m != 5 {
			t.Errorf("%d requests on %d connections for 5 redeems", n, m)
		}
	})
}

// Even a connection that another part of the program left open is not used,
// and a body cannot be rewound.
func TestRedeemCannotBeRepeated(t *testing.T) {
	issuer := New(Config{})
	req, err := issuer.newRedeem(t.Context(), testApp("https://login.example.com"), refreshGrant)
	if err != nil || req.GetBody != nil || req.ContentLength <= 0 {
		t.Errorf("GetBody set: %v, length %d, %v", req.GetBody != nil, req.ContentLength, err)
	}
	if p := issuer.tokens.Protocols; !issuer.tokens.DisableKeepAlives || p == nil || p.HTTP2() || p.UnencryptedHTTP2() {
		t.Errorf("the token transport reuses connections or speaks %v", p)
	}
}

// A server that prefers HTTP/2 gets HTTP/1.1 and one request per connection.
func TestRedeemOverTLS(t *testing.T) {
	var requests, connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.ProtoMajor != 1 || r.TLS.Version < tls.VersionTLS12 {
			t.Errorf("%s over TLS %x", r.Proto, r.TLS.Version)
		}
		_, _ = io.WriteString(w, "{}")
	}))
	server.EnableHTTP2 = true
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	issuer := New(Config{})
	trust(issuer, server)
	for range 3 {
		if got := issuer.Redeem(t.Context(), testApp(server.URL), refreshGrant); got.Class != rotation.Captured {
			t.Errorf("got %+v", got)
		}
	}
	if n, m := requests.Load(), connections.Load(); n != 3 || m != 3 {
		t.Errorf("%d requests on %d connections for 3 redeems", n, m)
	}
}

func trust(issuer *Issuer, server *httptest.Server) {
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	issuer.tokens.TLSClientConfig.RootCAs = roots
	issuer.asking.TLSClientConfig.RootCAs = roots
}

func TestRedirectIsNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s arrived at another server", r.Method, r.URL)
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := httptest.NewServer(http.RedirectHandler(elsewhere.URL+"/oauth/token", status))
		issuer := New(Config{})
		app := testApp(server.URL)
		if got := issuer.Redeem(t.Context(), app, refreshGrant); got.Class != rotation.OddRefusal {
			t.Errorf("%d: %+v", status, got)
		}
		if _, err := issuer.Identify(t.Context(), app, token.NewSecret("canary"), ""); err == nil {
			t.Errorf("%d: identified", status)
		}
		if err := issuer.Revoke(t.Context(), app, token.NewSecret("canary")); err == nil {
			t.Errorf("%d: revoked", status)
		}
		issuer.CloseIdleConnections()
		server.Close()
	}
}

// A hundred redeems at once are a hundred requests.
func TestRedeemConcurrently(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body map[string]string
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		mu.Lock()
		seen[body["refresh_token"]]++
		mu.Unlock()
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	issuer := New(Config{})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			grant := rotation.Grant{RefreshToken: token.NewSecret(strings.Repeat("r", i+1))}
			if got := issuer.Redeem(t.Context(), testApp(server.URL), grant); got.Class != rotation.UnknownResult {
				t.Errorf("got %+v", got)
			}
		})
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 100 {
		t.Errorf("%d of 100 arrived", len(seen))
	}
	for refresh, n := range seen {
		if n != 1 {
			t.Errorf("token %d was presented %d times", len(refresh), n)
		}
	}
}
