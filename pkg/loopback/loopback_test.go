package loopback

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/token"
)

const state = "STATE0123456789"

func listen(t *testing.T, path string) (*Receiver, string) {
	t.Helper()
	redirect := "http://localhost:" + freePort(t) + path
	r, err := Listen(redirect, token.NewSecret(state))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, redirect
}

func freePort(t *testing.T) string {
	t.Helper()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	return strconv.Itoa(probe.Addr().(*net.TCPAddr).Port)
}

func open(t *testing.T, address string) (int, string) {
	t.Helper()
	answer, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Header.Get("Cache-Control") != "no-store" || answer.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("the page can be cached or named in a referrer: %v", answer.Header)
	}
	return answer.StatusCode, string(body)
}

// A request other than the awaited redirect changes nothing; the redirect counts once.
func TestReceiver(t *testing.T) {
	r, redirect := listen(t, "/callback/sandbox")
	for address, want := range map[string]int{
		redirect:                       http.StatusBadRequest,
		redirect + "?code=canary-code": http.StatusBadRequest,
		redirect + "?code=canary-code&state=forged":                          http.StatusBadRequest,
		redirect + "?code=canary-code&state=" + state + "&state=x":           http.StatusBadRequest,
		redirect + "?code=canary-code&code=x&state=" + state:                 http.StatusBadRequest,
		redirect + "?state=" + state:                                         http.StatusBadRequest,
		redirect + "/more?code=canary-code&state=" + state:                   http.StatusNotFound,
		strings.Replace(redirect, "localhost", "127.0.0.1", 1) + "?" + state: http.StatusNotFound,
	} {
		if got, page := open(t, address); got != want || strings.Contains(page, "canary") {
			t.Errorf("%s: %d %q, want %d", address, got, page, want)
		}
	}
	for range 2 { // a browser may load the page again
		if got, page := open(t, redirect+"?code=the-code&state="+state); got != http.StatusOK || !strings.Contains(page,
			"Access was allowed") {
			t.Errorf("the redirect: %d %q", got, page)
		}
	}
	if code, err := r.Wait(t.Context()); err != nil || code.Reveal() != "the-code" {
		t.Errorf("got %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Wait(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("a second one came: %v", err)
	}
}

// Procore's default has no port, and browsers omit port 80 if it is named.
func TestReceiverAtPort80(t *testing.T) {
	for _, redirect := range []string{"http://localhost", "http://localhost:80/", "http://LOCALHOST:80",
		"http://[::1]:80/"} {
		for _, port := range []string{"", ":80"} {
			u, err := parse(redirect)
			if err != nil {
				t.Fatal(err)
			}
			page := httptest.NewRecorder()
			r := newReceiver(u, token.NewSecret(state))
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?code=the-code&state="+state, nil)
			request.Host = strings.ToLower(strings.TrimSuffix(u.Host, ":80")) + port
			if r.ServeHTTP(page, request); page.Code != http.StatusOK {
				t.Errorf("%s, reached at %s: %d", redirect, request.Host, page.Code)
			}
		}
	}
}

func TestReceiverWithoutACode(t *testing.T) {
	for problem, want := range map[string]struct {
		err        error
		page, says string
	}{
		"access_denied": {ErrDenied, "Access was not allowed", ""},
		"invalid_scope": {ErrNotAsked, "answered with an error", "invalid_scope"},
		"%1B[2JCanary":  {ErrNotAsked, "answered with an error", "not of RFC 6749"}, // it would reach a terminal
	} {
		r, redirect := listen(t, "") // which a browser asks for as /
		got, page := open(t, redirect+"/?error="+problem+"&state="+state)
		if got != http.StatusOK || !strings.Contains(page, want.page) || strings.Contains(page, "Canary") {
			t.Errorf("%s: %d %q", problem, got, page)
		}
		_, err := r.Wait(t.Context())
		if !errors.Is(err, want.err) || !strings.Contains(err.Error(), want.says) || strings.Contains(err.Error(), "Canary") {
			t.Errorf("%s: got %v", problem, err)
		}
	}
}

func TestListenRefuses(t *testing.T) {
	for _, redirect := range []string{"", "https://localhost/", "http://example.com/", "http://localhost.example.com/",
		"http://10.0.0.1/",
		"http://user@localhost/", "http://localhost/?a=b", "http://localhost/#x", "urn:ietf:wg:oauth:2.0:oob"} {
		if r, err := Listen(redirect, token.NewSecret(state)); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%q: %v, %v", redirect, r, err)
		}
	}
	_, redirect := listen(t, "/")
	if _, err := Listen(redirect, token.NewSecret(state)); err == nil || !strings.Contains(err.Error(),
		"address already in use") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// A port is held on every address of a host, or on none.
func TestBind(t *testing.T) {
	six, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	defer six.Close()
	_, port, _ := net.SplitHostPort(six.Addr().String())
	if listeners, err := Bind("localhost", port); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%d listeners beside another program: %v", len(listeners), err)
	}
	four, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Errorf("the refused port is still held: %v", err)
	} else {
		four.Close()
	}

	listeners, err := Bind("LOCALHOST", "0")
	if err != nil || len(listeners) != 2 {
		t.Fatalf("%d listeners: %v", len(listeners), err)
	}
	_, port, _ = net.SplitHostPort(listeners[0].Addr().String())
	for i, want := range []string{"127.0.0.1:" + port, "[::1]:" + port} {
		if got := listeners[i].Addr().String(); got != want {
			t.Errorf("listens at %s, not %s", got, want)
		}
		defer listeners[i].Close()
	}
	for _, host := range []string{"127.0.0.1", "::1", ""} {
		one, err := Bind(host, "0")
		if err != nil || len(one) != 1 {
			t.Fatalf("%q: %d listeners: %v", host, len(one), err)
		}
		one[0].Close()
	}
	if _, err := Bind("host.invalid", "0"); err == nil {
		t.Error("a host without an address is no error")
	}
}
