// Package loopback receives the redirect of a consent on the machine where the
// person works (RFC 8252 section 7.3), without a public address and without copying
// a code.
//
// The redirect URI must equal the registered one exactly. Procore's portal accepts
// http for localhost only, and its default has no port, which means port 80.
package loopback

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/webpage"
)

// ErrDenied: the person did not allow access.
var ErrDenied = errors.New("access was not allowed")

// ErrNotAsked: the authorization server answered with an error instead of asking the
// person or of accepting the person's answer (RFC 6749 section 4.1.2.1).
var ErrNotAsked = errors.New("the authorization page answers with an error")

// ErrNotLoopback: the redirect URI does not lead to this machine.
var ErrNotLoopback = errors.New("not an http:// address of this machine such as http://localhost:8765/callback")

// Receiver waits for one redirect.
type Receiver struct {
	path      string
	host      string // as a browser sends it
	state     token.Secret
	listeners []net.Listener
	server    *http.Server

	once   sync.Once
	result chan result // gets one
}

type result struct {
	code token.Secret
	err  error
}

// IsLoopback reports whether redirectURI can be received here.
func IsLoopback(redirectURI string) bool {
	_, err := parse(redirectURI)
	return err == nil
}

func parse(redirectURI string) (*url.URL, error) {
	u, err := url.Parse(redirectURI)
	if err != nil || u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, ErrNotLoopback
	}
	if address, err := netip.ParseAddr(u.Hostname()); !strings.EqualFold(u.Hostname(), "localhost") &&
		(err != nil || !address.IsLoopback()) {
		return nil, ErrNotLoopback
	}
	return u, nil
}

// Listen opens the port of redirectURI on the loopback addresses of its host, and
// accepts the redirect that carries state. ErrNotLoopback. Close it.
func Listen(redirectURI string, state token.Secret) (*Receiver, error) {
	u, err := parse(redirectURI)
	if err != nil {
		return nil, err
	}
	r := newReceiver(u, state)
	if r.listeners, err = Bind(u.Hostname(), cmp.Or(u.Port(), "80")); err != nil {
		return nil, fmt.Errorf("listening for %s: %w", redirectURI, err)
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	for _, listener := range r.listeners {
		go func() { _ = r.server.Serve(listener) }()
	}
	return r, nil
}

// Bind opens a port on every address of this machine that host has, as a browser may use any
// of them, and on all or none: if another program listened at one of them, it would get what
// was meant for this one. "localhost" is 127.0.0.1 and ::1 (RFC 6761 section 6.3), or one of
// them on a machine that has no other. Port "0" is the same free port on all.
func Bind(host, port string) (listeners []net.Listener, err error) {
	for range 10 { // a free port may be taken at another address
		listeners, err = bind(host, port)
		if port != "0" || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return listeners, err
}

func bind(host, port string) (listeners []net.Listener, err error) {
	isLocalhost := strings.EqualFold(host, "localhost")
	hosts := []string{"127.0.0.1", "::1"}
	if _, parseErr := netip.ParseAddr(host); host == "" || parseErr == nil {
		hosts = []string{host}
	} else if !isLocalhost {
		if hosts, err = net.LookupHost(host); err != nil {
			return nil, err
		}
		slices.Sort(hosts)
		hosts = slices.Compact(hosts)
	}
	for _, host := range hosts {
		listener, listenErr := net.Listen("tcp", net.JoinHostPort(host, port))
		switch {
		case listenErr == nil:
			listeners = append(listeners, listener)
			_, port, _ = net.SplitHostPort(listener.Addr().String())
		case isLocalhost && len(hosts) > 1 && !errors.Is(listenErr, syscall.EADDRINUSE): // a machine without IPv6
			err = cmp.Or(err, listenErr)
		default:
			closeAll(listeners)
			return nil, listenErr
		}
	}
	if len(listeners) == 0 {
		return nil, err
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) {
	for _, listener := range listeners {
		_ = listener.Close()
	}
}

func newReceiver(u *url.URL, state token.Secret) *Receiver {
	return &Receiver{path: cmp.Or(u.Path, "/"), host: hostOf(u.Host), state: state, result: make(chan result, 1)}
}

// hostOf returns a host as a browser sends it, without the default port of http
// (RFC 9110 section 4.2.3).
func hostOf(host string) string { return strings.TrimSuffix(host, ":80") }

// Wait returns the code from the redirect. ErrDenied; ErrNotAsked, with the server's
// error code; or the error of ctx, if no redirect arrives before its end.
func (r *Receiver) Wait(ctx context.Context) (token.Secret, error) {
	select {
	case got := <-r.result:
		return got.code, got.err
	case <-ctx.Done():
		return token.Secret{}, ctx.Err()
	}
}

// Close waits until the last page is delivered and stops listening.
func (r *Receiver) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = r.server.Shutdown(ctx)
	closeAll(r.listeners)
}

// ServeHTTP implements http.Handler. A request without the state, which only the
// browser of this consent knows, changes nothing.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	query := request.URL.Query()
	ours := subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(r.state.Reveal())) == 1 &&
		len(query["state"]) == 1
	switch code := query.Get("code"); {
	case request.Method != http.MethodGet || request.URL.Path != r.path || !strings.EqualFold(hostOf(request.Host),
		r.host):
		show(w, http.StatusNotFound, page{"", "There is nothing here", "There is no page at this address."})
	case !ours || len(query["code"]) > 1:
		show(w, http.StatusBadRequest, page{"bad", "This is another consent",
			"This is not the consent that the tokenturn command waits for. Open the address that the command printed."})
	case query.Get("error") == "access_denied":
		r.finish(token.Secret{}, ErrDenied)
		show(w, http.StatusOK, page{"", "Access was not allowed", "Nothing was connected. You can close this page."})
	case query.Has("error"):
		r.finish(token.Secret{}, fmt.Errorf("%w: %s", ErrNotAsked, word(query.Get("error"))))
		show(w, http.StatusOK, page{"bad", "The authorization page answered with an error",
			"You can close this page; the tokenturn command shows the error."})
	case code == "":
		show(w, http.StatusBadRequest, page{"bad", "The redirect contains no code",
			"Open the address that the tokenturn command printed."})
	default:
		r.finish(token.NewSecret(code), nil)
		show(w, http.StatusOK, page{"good", "Access was allowed",
			"You can close this page; the tokenturn command shows the result."})
	}
}

// errorWord matches the error codes of RFC 6749.
var errorWord = regexp.MustCompile(`^[a-z_]{1,64}$`)

func word(problem string) string {
	if !errorWord.MatchString(problem) {
		return "an error code that is not of RFC 6749"
	}
	return problem
}

func (r *Receiver) finish(code token.Secret, err error) {
	r.once.Do(func() { r.result <- result{code, err} })
}

// page is what a person sees in the browser. The command says more.
type page struct{ Tone, Title, Text string }

var frame = template.Must(template.New("").Funcs(webpage.Funcs()).Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<link rel="icon" href="{{icon}}">
<style>{{style}}</style>
</head>
<body>
<main class="sheet {{.Tone}}">
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
</main>
<footer>This page belongs to the tokenturn command on this machine.</footer>
</body>
</html>
`))

// show answers with a page that loads, runs and stores nothing.
func show(w http.ResponseWriter, status int, p page) {
	webpage.Protect(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = frame.Execute(w, p)
}
