package tokensource_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"golang.org/x/oauth2"

	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/tokensourcetest"
)

const apiURL = "https://api.example.com"

// handled is a transport that calls a handler instead of a network, so that it works
// in a synctest bubble. It checks that every body is closed.
type handled struct {
	http.Handler
	open  atomic.Int64 // bodies
	calls atomic.Int64
}

func (h *handled) RoundTrip(r *http.Request) (*http.Response, error) {
	h.calls.Add(1)
	w := httptest.NewRecorder()
	if r.Body == nil {
		r = r.Clone(r.Context())
		r.Body = http.NoBody // as servers have it
	}
	h.ServeHTTP(w, r)
	r.Body.Close()
	response := w.Result()
	response.Request = r
	h.open.Add(1)
	response.Body = &counted{ReadCloser: response.Body, open: &h.open}
	return response, nil
}

type counted struct {
	io.ReadCloser
	open   *atomic.Int64
	closed bool
}

func (c *counted) Close() error {
	if !c.closed {
		c.closed = true
		c.open.Add(-1)
	}
	return c.ReadCloser.Close()
}

// echo answers with the parts of the request.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	io.WriteString(w, r.Method+" "+string(body)+" "+r.Header.Get("Procore-Company-Id"))
})

// spaced checks that reads are a second apart.
type spaced struct {
	tokensource.SecretReader
	t *testing.T

	mu   sync.Mutex
	last time.Time
}

func (p *spaced) GetSecretValue(ctx context.Context, in *secretsmanager.GetSecretValueInput,
	o ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	p.mu.Lock()
	if since := time.Since(p.last); since < time.Second {
		p.t.Errorf("a read %v after the one before", since)
	}
	p.last = time.Now()
	p.mu.Unlock()
	return p.SecretReader.GetSecretValue(ctx, in, o...)
}

func newClient(t *testing.T, secret *tokensourcetest.Secret, api http.Handler) (*tokensource.Source, *http.Client,
	*handled) {
	t.Helper()
	secret.Edit(func(d *token.Document) { d.APIURL, d.CompanyID = apiURL, "562949953421312" })
	network := &handled{Handler: api}
	source := newSource(t, &spaced{SecretReader: secret, t: t})
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: network, Timeout: time.Minute})
	client := source.Client(ctx)
	if client.Timeout != time.Minute {
		t.Error("the client's timeout was lost")
	}
	return source, client, network
}

func get(t *testing.T, client *http.Client, request *http.Request) (int, string) {
	t.Helper()
	response, err := client.Do(request)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, string(body)
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRequestsCarryTokenAndCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		_, client, network := newClient(t, secret, secret.Protect(echo))
		r := request(t, "GET", apiURL+"/rest/v1.0/me", nil)
		if status, body := get(t, client, r); status != 200 || body != "GET  562949953421312" {
			t.Errorf("%d %q", status, body)
		}
		if len(r.Header) != 0 {
			t.Errorf("the request was changed: %v", r.Header)
		}
		r.Header.Set("Procore-Company-Id", "7")
		if status, body := get(t, client, r); status != 200 || body != "GET  7" {
			t.Errorf("with a company of its own: %d %q", status, body)
		}
		secret.Edit(func(d *token.Document) { d.CompanyID = "" })
		time.Sleep(time.Minute)
		if status, body := get(t, client, request(t, "GET", apiURL, nil)); status != 200 || body != "GET  " {
			t.Errorf("without a company: %d %q", status, body)
		}
		if n := network.open.Load(); n != 0 {
			t.Errorf("%d bodies left open", n)
		}
	})
}

// A request with an invalid token succeeds with the new one, including its body.
func TestRotationIsNotNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		_, client, network := newClient(t, secret, secret.Protect(echo))
		for _, r := range []*http.Request{
			request(t, "GET", apiURL, nil),
			request(t, "DELETE", apiURL, http.NoBody),
			request(t, "POST", apiURL, strings.NewReader("body")),
		} {
			secret.Rotate()
			before := network.calls.Load()
			if status, body := get(t, client, r); status != 200 || !strings.HasPrefix(body, r.Method) || r.Method == "POST" &&
				!strings.Contains(body, " body ") {
				t.Errorf("%s: %d %q", r.Method, status, body)
			}
			if n := network.calls.Load() - before; n > 2 {
				t.Errorf("%d calls", n)
			}
		}
		if n := network.open.Load(); n != 0 {
			t.Errorf("%d bodies left open", n)
		}
	})
}

// The API may refuse the old token a moment before the new one is published.
func TestNewTokenIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		published := secret.Document()
		_, client, _ := newClient(t, secret, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer "+published.AccessToken.Reveal() {
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		var publisher sync.WaitGroup
		publisher.Go(func() {
			time.Sleep(4500 * time.Millisecond)
			secret.Rotate()
		})
		defer publisher.Wait()
		began := time.Now()
		if status, _ := get(t, client, request(t, "GET", apiURL, nil)); status != 200 {
			t.Errorf("status %d", status)
		}
		if waited := time.Since(began); waited > 6*time.Second {
			t.Errorf("waited %v", waited)
		}
		if secret.Reads() > 6 {
			t.Errorf("%d reads", secret.Reads())
		}
	})
}

// If publishing takes longer than the first requests wait, later requests still find the new token.
func TestLatePublication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		killed := secret.Document()
		_, client, _ := newClient(t, secret, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer "+killed.AccessToken.Reveal() {
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		var all sync.WaitGroup
		all.Go(func() {
			time.Sleep(9500 * time.Millisecond)
			secret.Rotate()
		})
		for at := range 20 {
			all.Go(func() {
				time.Sleep(time.Duration(at) * time.Second)
				want := 200
				if at < 5 {
					want = 401
				}
				if status, _ := get(t, client, request(t, "GET", apiURL, nil)); status != want {
					t.Errorf("after %d s: status %d", at, status)
				}
			})
		}
		all.Wait()
	})
}

// A stream cannot be sent twice: the 401 comes back, and the next request finds the new token.
func TestStreamIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		_, client, network := newClient(t, secret, secret.Protect(echo))
		get(t, client, request(t, "GET", apiURL, nil))
		time.Sleep(2 * time.Second)
		secret.Rotate()
		stream := func() *http.Request { return request(t, "POST", apiURL, io.MultiReader(strings.NewReader("stream"))) }
		before := network.calls.Load()
		if status, _ := get(t, client, stream()); status != 401 || network.calls.Load()-before != 1 {
			t.Errorf("status %d after %d calls", status, network.calls.Load()-before)
		}
		if status, body := get(t, client, stream()); status != 200 || !strings.Contains(body, "stream") {
			t.Errorf("the next: %d %q", status, body)
		}
		if n := network.open.Load(); n != 0 {
			t.Errorf("%d bodies left open", n)
		}
	})
}

// If the API refuses even the newest token, the 401 is returned soon after the first one, and
// the secret is read at most once a second however many requests fail.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
		_, client, network := newClient(t, secret, refuse)
		began := time.Now()
		end := began.Add(30 * time.Second)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				for time.Now().Before(end) {
					sent := time.Now()
					if status, _ := get(t, client, request(t, "GET", apiURL, nil)); status != 401 {
						t.Errorf("status %d", status)
					}
					if waited := time.Since(sent); waited > 6*time.Second || waited > 0 && sent.Sub(began) > 17*time.Second {
						t.Errorf("after %v a request waited %v", sent.Sub(began), waited)
					}
					time.Sleep(50 * time.Millisecond)
				}
			})
		}
		all.Wait()
		if reads := secret.Reads(); reads > 20 { // 1 s apart for 15 s, then 1, 2, 4 and 8
			t.Errorf("%d reads in 30 s", reads)
		}
		if n := network.open.Load(); n != 0 {
			t.Errorf("%d bodies left open", n)
		}
	})
}

// With any number of requests during each rotation, none fails, and there is at most one read a second.
func TestStormOfRotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		_, client, _ := newClient(t, secret, secret.Protect(echo))
		stop := time.Now().Add(100 * time.Second)
		var all sync.WaitGroup
		all.Go(func() {
			for time.Now().Before(stop) {
				time.Sleep(5 * time.Second)
				secret.Rotate()
			}
		})
		for range 20 {
			all.Go(func() {
				for time.Now().Before(stop) {
					if status, _ := get(t, client, request(t, "POST", apiURL, strings.NewReader("x"))); status != 200 {
						t.Errorf("status %d", status)
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		all.Wait()
		if reads := secret.Reads(); reads > 106 {
			t.Errorf("%d reads in 105 s", reads)
		}
	})
}

// The token goes to the API that the document names and nowhere else.
func TestOtherHostsDoNotSeeTheToken(t *testing.T) {
	for _, apiKnown := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			secret := tokensourcetest.New(acme)
			seen := map[string]string{}
			_, client, _ := newClient(t, secret, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen[r.URL.Host] = r.Header.Get("Authorization") + r.Header.Get("Procore-Company-Id")
				if r.URL.Host == "api.example.com" {
					http.Redirect(w, r, "https://files.example.net/file", http.StatusFound)
				}
			}))
			if !apiKnown {
				secret.Edit(func(d *token.Document) { d.APIURL = "" })
			}
			get(t, client, request(t, "GET", apiURL, nil))
			if seen["api.example.com"] == "" || seen["files.example.net"] != "" {
				t.Errorf("API known %v: the hosts saw %d and %d bytes", apiKnown, len(seen["api.example.com"]),
					len(seen["files.example.net"]))
			}
			if !apiKnown {
				return
			}
			for _, other := range []string{"http://api.example.com", "https://api.example.com.evil.example",
				"https://api.example.com:8443"} {
				r := request(t, "GET", other, nil)
				get(t, client, r)
				if seen[r.URL.Host] != "" && r.URL.Host != "api.example.com" || r.URL.Scheme == "http" &&
					seen["api.example.com"] != "" {
					t.Errorf("%s saw the token", other)
				}
			}
		})
	}
}

func TestRequestWithoutToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		_, client, network := newClient(t, secret, echo)
		secret.Fail(denied())
		body := &closing{Reader: strings.NewReader("x")}
		_, err := client.Do(request(t, "POST", apiURL, body))
		if !errors.Is(err, tokensource.ErrDenied) {
			t.Errorf("error %v", err)
		}
		if network.calls.Load() != 0 || !body.closed {
			t.Errorf("%d calls, body closed: %v", network.calls.Load(), body.closed)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := client.Do(request(t, "GET", apiURL, nil).WithContext(ctx)); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

func TestStatic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := tokensource.Static(token.Document{AccessToken: token.NewSecret("static"), CompanyID: "7"})
		var authorizations []string
		network := &handled{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			authorizations = append(authorizations, r.Header.Get("Authorization")+" "+r.Header.Get("Procore-Company-Id"))
			w.WriteHeader(http.StatusUnauthorized)
		})}
		client := &http.Client{Transport: source.Transport(network)}
		for range 3 {
			began := time.Now()
			if status, _ := get(t, client, request(t, "GET", apiURL, nil)); status != 401 || time.Since(began) != 0 {
				t.Errorf("status %d after %v", status, time.Since(began))
			}
			time.Sleep(24 * time.Hour)
		}
		for _, got := range authorizations {
			if got != "Bearer static 7" {
				t.Errorf("sent %q", got)
			}
		}
		if got, err := source.Token(); err != nil || got.AccessToken != "static" || !got.Valid() {
			t.Errorf("token %v", err)
		}
	})
}

// Over a real network connection: the discarded response leaves it usable.
func TestConnectionIsReused(t *testing.T) {
	secret := tokensourcetest.New(acme)
	var remotes sync.Map
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remotes.Store(r.RemoteAddr, true)
		secret.Protect(echo).ServeHTTP(w, r)
	}))
	defer server.Close()
	secret.Edit(func(d *token.Document) { d.APIURL = server.URL })
	source := newSource(t, secret)
	if _, err := source.Token(); err != nil {
		t.Fatal(err)
	}
	secret.Rotate()
	client := &http.Client{Transport: source.Transport(server.Client().Transport)}
	if status, body := get(t, client, request(t, "POST", server.URL, strings.NewReader("x"))); status != 200 ||
		body != "POST x " {
		t.Errorf("%d %q", status, body)
	}
	connections := 0
	remotes.Range(func(any, any) bool { connections++; return true })
	if connections != 1 {
		t.Errorf("%d connections", connections)
	}
}

// A body for a repetition that is not made is closed.
func TestUnusedBodyIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		_, client, _ := newClient(t, secret, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
		}))
		first, second := &closing{Reader: strings.NewReader("x")}, &closing{Reader: strings.NewReader("x")}
		r := request(t, "POST", apiURL, first)
		r.GetBody = func() (io.ReadCloser, error) { return second, nil }
		if status, _ := get(t, client, r); status != 401 || !first.closed || !second.closed {
			t.Errorf("status %d, bodies closed: %v, %v", status, first.closed, second.closed)
		}
	})
}

// A machine with a clock that is wrong by hours. If it is slow, it takes an expired token
// for a valid one, and the API's 401 corrects that. If it is fast, it takes every token
// for expired, and the error names the clock.
func TestSkewedClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		source, client, _ := newClient(t, secret, secret.Protect(echo))
		skew := func(by time.Duration) {
			secret.Edit(func(d *token.Document) {
				for _, at := range []*time.Time{&d.CreatedAt, &d.SavedAt, &d.ExpiresAt} {
					*at = at.Add(by)
				}
			})
		}
		for range 5 {
			secret.Rotate()
			skew(3 * time.Hour) // from a slow clock, servers live in the future
			if status, _ := get(t, client, request(t, "GET", apiURL, nil)); status != 200 {
				t.Errorf("status %d", status)
			}
		}
		time.Sleep(5 * time.Hour)
		secret.Rotate()
		skew(-3 * time.Hour)
		_, err := source.Token()
		if !errors.Is(err, tokensource.ErrExpired) || !strings.Contains(err.Error(), "by this machine's clock") {
			t.Errorf("error %v", err)
		}
	})
}
