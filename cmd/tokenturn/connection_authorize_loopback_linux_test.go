package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
)

// receives registers a redirect URI on a free port of this machine.
func (s *machine) receives(path string) string {
	s.t.Helper()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	defer probe.Close()
	redirect := fmt.Sprintf("http://localhost:%d%s", probe.Addr().(*net.TCPAddr).Port, path)
	s.app.RedirectURIs = append([]string{redirect}, s.app.RedirectURIs...)
	s.standIn.Register(s.app)
	return redirect
}

const waitingForRedirect = "is not registered."

func TestLoopback(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	redirect := s.receives("/callback/demo")
	back := func(session *session, allow bool) string {
		session.sees(waitingForRedirect)
		address, err := s.standIn.Consent(authorizeAddress.FindString(session.shown), procoretest.DefaultUser().Login, allow)
		if err != nil {
			t.Fatal(err)
		}
		return address
	}
	follow := func(address string) int {
		page, err := http.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		page.Body.Close()
		return page.StatusCode
	}

	session := s.start("connection", "authorize", "demo/acme", "--loopback="+redirect, "--company", "4264807")
	address := back(session, true)
	if got := follow(strings.Replace(address, "state=", "state=forged", 1)); got != http.StatusBadRequest {
		t.Errorf("a forged redirect is answered with %d", got)
	}
	if exit, shown := func() (int, string) { follow(address); return session.ends() }(); exit != done ||
		!strings.Contains(shown, "demo/acme is connected: Procore user 160586 in company 4264807") {
		t.Errorf("exit code %d; shown:\n%s", exit, shown)
	}

	s.credentials("demo", s.app) // with that redirect URI
	session = s.start("connection", "authorize", "demo/other", "--loopback")
	follow(back(session, false))
	if exit, shown := session.ends(); exit != needsConsent || !strings.Contains(shown,
		"access was not allowed, so nothing was changed") {
		t.Errorf("denied: exit code %d; shown:\n%s", exit, shown)
	}

	session = s.start("connection", "authorize", "demo/other", "--loopback")
	session.sees(waitingForRedirect)
	if exit, said := s.pipe("", "connection", "authorize", "demo/other", "--loopback"); exit != failed ||
		!strings.Contains(said, "address already in use; register another redirect URI, such as "+
			"http://localhost:8765/callback, and name it with --loopback=URI") {
		t.Errorf("the port is taken: exit code %d; said:\n%s", exit, said)
	}
	session.types("\x03")
	if exit, shown := session.ends(); exit != interrupted || !strings.Contains(shown,
		"interrupted; no code was exchanged and nothing was changed") {
		t.Errorf("interrupted: exit code %d; shown:\n%s", exit, shown)
	}
	if got := s.status("demo/other"); got != "" {
		t.Errorf("the connection is %s", got)
	}
}

// Where there is a browser it is opened, and nothing else is left to do.
func TestLoopbackOpensABrowser(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	redirect := s.receives("") // as the Developer Portal suggests, apart from the port
	if err := os.Symlink(s.program, filepath.Join(s.home, "xdg-open")); err != nil {
		t.Fatal(err)
	}
	s.environ = append(s.environ, "DISPLAY=:0")
	exit, said := s.pipe("", "connection", "authorize", "demo/acme", "--loopback="+redirect)
	if exit != done || !strings.Contains(said, "demo/acme is connected") {
		t.Errorf("exit code %d; said:\n%s", exit, said)
	}
}
