//go:build conformance

package conformance

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// A real Chromium presses every button of the console that repairs something, at
// `tokenturn serve` and, after a login through a proxy that ends TLS, at `tokenturn console`.
func TestConsoleButtonsInABrowser(t *testing.T) {
	t.Parallel()
	s := newStandInSite(t)
	s.screens = screens(t, "operate")
	for name, value := range quick { // to present a refresh token again soon
		s.environ = append(s.environ, name+"="+value)
	}
	s.serve(s.proxy.URL, func(public string) procoretest.App {
		s.app = s.NewApp(public + "/callback/demo")
		return s.app
	})
	s.control["import"] = s.imports
	s.control["rotate"] = func(q question) (any, error) {
		_, err := s.operate("connection", "rotate", q.Connection)
		return struct{}{}, err
	}
	s.control["spoil"] = func(q question) (any, error) {
		switch q.How {
		case "two tokens":
			s.Script(procoretest.Rewritten(func(sound string) string {
				return strings.TrimSuffix(strings.TrimSpace(sound), "}") +
					`,"refresh_token":"another-refresh-token-of-the-right-length"}`
			}))
		case "wrong secret":
			s.Script(procoretest.Answer{Unreceived: true, Status: http.StatusUnauthorized, ContentType: "application/json",
				Body: func(string) string { return `{"error":"invalid_client"}` }})
		case "up again":
			s.BringUp()
		default:
			return nil, fmt.Errorf("how: %q", q.How)
		}
		return struct{}{}, nil
	}
	s.control["refresh token"] = func(question) (any, error) { // of the newest token pair
		all := s.Live()
		return map[string]string{"refresh": all[len(all)-1].RefreshToken.Reveal()}, nil
	}
	address, password := s.consoleOverTLS()
	s.browse("operate.mjs", map[string]any{"consoleURL": address, "consolePassword": password,
		"patience": 60_000})
}

// imports brings a refresh token of the stand-in into the store. how: "then down", for an access
// token that expires after ten seconds, and a stand-in that rotates nothing meanwhile.
func (s *standInSite) imports(q question) (any, error) {
	if q.How == "then down" {
		s.SetLifetime(10 * time.Second)
		defer s.TakeDown(http.StatusServiceUnavailable)
		defer s.SetLifetime(90 * time.Minute)
	}
	pair, err := s.Issue(s.app.ClientID, procoretest.DefaultUser().Login)
	if err != nil {
		return nil, err
	}
	_, err = s.run([]byte(pair.RefreshToken.Reveal()), "connection", "import", q.Connection)
	return struct{}{}, err
}

// consoleOverTLS runs `tokenturn console` behind a proxy at https://console.test.
func (s *standInSite) consoleOverTLS() (address, password string) {
	t := s.t
	port := freePort(t)
	inside := &url.URL{Scheme: "http", Host: "localhost:" + port}
	proxy := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(inside)
		r.SetXForwarded()
		r.Out.Host = r.In.Host
	}})
	proxy.Config.ErrorLog = log.New(io.Discard, "", 0) // the browser does not know the certificate, and goes on
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	address = "https://console.test:" + mustURL(t, proxy.URL).Port()
	console := serving(t, "--data", s.data, "console", "--addr", inside.Host, "--public-url", address, "--allow-actions")
	console.says(t, regexp.MustCompile(`Console:? +(https://\S+)`))
	text, err := os.ReadFile(console.says(t, regexp.MustCompile(`The password is in (.+)\.\n`)))
	if err != nil {
		t.Fatal(err)
	}
	return address, strings.TrimSpace(string(text))
}

func mustURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A real Chromium opens the console of 1,000 connections. What it takes is compared with the
// console of ten on the same machine, because machines differ.
func TestConsoleOfAThousandInABrowser(t *testing.T) {
	t.Parallel()
	console := regexp.MustCompile(`Console:? +(http://\S+?)/?\s`)
	large := t.TempDir()
	rewrite := fill(t, large, 1000)
	s := &site{t: t, screens: screens(t, "thousand"), log: &lockedBuffer{}}
	many := serving(t, "serve", "--data", large, "--addr", "localhost:"+freePort(t))
	s.publicURL, s.log = many.says(t, console), many.out
	small := t.TempDir()
	fill(t, small, 10)
	few := serving(t, "serve", "--data", small, "--addr", "localhost:"+freePort(t))
	s.control = map[string]func(question) (any, error){
		"cpu":     func(question) (any, error) { return many.cpu() },
		"rewrite": func(question) (any, error) { return struct{}{}, rewrite() },
	}
	s.browse("thousand.mjs", map[string]any{"fewURL": few.says(t, console)})
}

// fill stores connections that are active and not due. rewrite gives all of them another
// generation.
func fill(t *testing.T, data string, n int) (rewrite func() error) {
	t.Helper()
	store, err := embedded.Open(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	generation := int64(0)
	write := func() error {
		generation++
		for i := range n {
			c := token.Connection{Environment: "production", Name: fmt.Sprintf("northwind-general-%04d", i)}
			rec, _, err := store.Ledger().Load(t.Context(), c)
			if err != nil {
				return err
			}
			saved := time.Now().Add(-10 * time.Minute).UTC().Truncate(time.Second)
			_, err = store.Ledger().Write(t.Context(), rotation.Change{Record: rotation.Record{Connection: c,
				Revision: rec.Revision, Stack: "embedded", Status: rotation.Active, Epoch: 1, Generation: generation,
				Published: "v", RotatedAt: saved, DueAt: saved.Add(24 * time.Hour),
				Current: &rotation.Current{Response: rotation.ResponseKey{Epoch: 1, Generation: generation, Attempt: "a"},
					VersionID: "v", SavedAt: saved, IssuedAt: saved, ExpiresAt: saved.Add(48 * time.Hour), Lifetime: 48 * 3600},
				Pin: &rotation.Pin{Environment: c.Environment, ResourceOwner: strconv.Itoa(i), Company: strconv.Itoa(4_000_000 + i),
					CompanyName: fmt.Sprintf("Northwind General %04d", i),
					Login:       fmt.Sprintf("alexandra.henriksen-%04d@northwind-construction.example", i)}}})
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	return write
}

// cpu is the processor time that the command has taken, in milliseconds.
func (s *server) cpu() (map[string]int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		return nil, err
	}
	_, after, _ := strings.Cut(string(text), ") ") // the name of the command may have spaces
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return nil, errors.New("no processor time in /proc")
	}
	total := 0
	for _, field := range fields[11:13] { // utime and stime, in hundredths of a second; see proc_pid_stat(5)
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		total += 10 * ticks
	}
	return map[string]int{"ms": total}, nil
}
