package readapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/readapi"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Renewals, and what a reader waits for.

func TestATokenWithLittleLifeLeftIsRenewed(t *testing.T) {
	for _, test := range []struct {
		name           string
		lifetime, left time.Duration
		renewed        bool
	}{
		{"more than a minute left", time.Hour, 62 * time.Second, false},
		{"less than a minute left", time.Hour, 58 * time.Second, true},
		{"expired", time.Hour, -time.Hour, true},
		{"short-lived, more than a quarter left", 40 * time.Second, 12 * time.Second, false},
		{"short-lived, less than a quarter left", 40 * time.Second, 8 * time.Second, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t, test.lifetime)
			m.leave(test.left)
			got := m.read().Generation
			m.api.Wait() // a slow machine gives up waiting before the renewal ends
			if is := m.document().Generation; (is == 2) != test.renewed {
				t.Errorf("renewed to generation %d", is)
			}
			if test.left < 0 && got != 2 {
				t.Errorf("generation %d is handed out", got)
			}
		})
	}
}

// Many readers at once cause one renewal, and all of them get its result.
func TestReadersRenewTogether(t *testing.T) {
	m := newMachine(t, time.Hour)
	before := len(m.standIn.Presentations())
	m.leave(-time.Second)
	var readers sync.WaitGroup
	for range 20 {
		readers.Go(func() {
			if d := m.read(); d.Generation != 2 {
				t.Errorf("generation %d", d.Generation)
			}
		})
	}
	readers.Wait()
	if n := len(m.standIn.Presentations()) - before; n != 1 {
		t.Errorf("%d presentations", n)
	}
}

// While the present token is alive, a renewal that fails or takes long does not withhold it. Its
// answer is saved although the reader has gone. Once it has expired, the reader learns why.
func TestARenewalThatBringsNothing(t *testing.T) {
	t.Run("slow", func(t *testing.T) {
		m := newMachine(t, time.Hour)
		release := make(chan struct{})
		m.standIn.Script(procoretest.Blocked(release))
		m.leave(30 * time.Second)
		if d := m.read(); d.Generation != 1 {
			t.Errorf("generation %d", d.Generation)
		}
		close(release)
		m.api.Wait()
		if d := m.document(); d.Generation != 2 {
			t.Errorf("after the renewal: generation %d", d.Generation)
		}
	})
	t.Run("unavailable", func(t *testing.T) {
		m := newMachine(t, time.Hour)
		m.standIn.TakeDown(http.StatusServiceUnavailable)
		m.leave(30 * time.Second)
		if d := m.read(); d.Generation != 1 {
			t.Errorf("generation %d", d.Generation)
		}
		m.leave(-time.Minute) // when the attempt has ended
		status, body := m.ask(get, nil)
		if status != http.StatusServiceUnavailable ||
			!strings.Contains(body, "has expired, and there is no newer one. outcome ") {
			t.Errorf("%d %s", status, body)
		}
	})
	t.Run("refused", func(t *testing.T) {
		m := newMachine(t, time.Hour)
		m.standIn.RevokeAll(m.app.ClientID, procoretest.DefaultUser().Login)
		m.leave(-time.Second)
		status, body := m.ask(get, nil)
		if status != http.StatusBadRequest || !strings.Contains(body, "ResourceNotFoundException") ||
			!strings.Contains(body, "outcome needs_consent") {
			t.Errorf("%d %s", status, body)
		}
	})
}

// rotating is a ledger and a secret store during a rotation, and the engine.
type rotating struct {
	rec      func() rotation.Record
	document func() token.Document
	do       func(context.Context) (rotation.Report, error) // nil: nothing is due
}

func (r rotating) Load(context.Context, token.Connection) (rotation.Record, []rotation.TokenResponse, error) {
	return r.rec(), nil, nil
}

func (r rotating) Current(context.Context, token.Connection) (rotation.Version, error) {
	value, err := r.document().Encode()
	return rotation.Version{ID: "version", Value: value}, err
}

func (r rotating) Do(ctx context.Context, _ rotation.Request) (rotation.Report, error) {
	if r.do == nil {
		return rotation.Report{}, errors.New("nothing is due")
	}
	return r.do(ctx)
}

// api serves what readers see during the rotation.
func (r rotating) api(t *testing.T) *readapi.Handler {
	t.Helper()
	api, err := readapi.New(readapi.Config{Ledger: r, Secrets: r, Engine: r, Token: token.NewSecret(readerToken),
		Port: "8080", Now: time.Now,
		Explain: func(r rotation.ConnectionReport) error { return errors.New("outcome " + string(r.Outcome)) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Wait)
	return api
}

// ask makes a request.
func (r rotating) ask(t *testing.T) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t.Context(), r.api(t))
}

// ask makes a request, which the reader gives up at the end of ctx.
func ask(ctx context.Context, api http.Handler) *httptest.ResponseRecorder {
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost:8080"+get, nil)
	request.RemoteAddr = "127.0.0.1:1234"
	request.Header.Set("X-Aws-Parameters-Secrets-Token", readerToken)
	answer := httptest.NewRecorder()
	api.ServeHTTP(answer, request)
	return answer
}

// reports is the report of a request about one connection.
func reports(r rotation.ConnectionReport) (rotation.Report, error) {
	r.Connection = acme
	return rotation.Report{Connections: []rotation.ConnectionReport{r}}, nil
}

// stored is a record of an active connection.
func stored(generation int64, attempt *rotation.Attempt) rotation.Record {
	return rotation.Record{Connection: acme, Revision: "r", Status: rotation.Active, Epoch: 1, Generation: generation,
		Attempt: attempt}
}

// lives is a document with an hour's token.
func lives(generation int64, until time.Time) token.Document {
	return token.Document{Connection: acme, Environment: acme.Environment, Epoch: 1, Generation: generation,
		AccessToken: token.NewSecret("any"), TokenType: "Bearer", CreatedAt: until.Add(-time.Hour), ExpiresAt: until}
}

// If the server has never said how long its tokens live, the token is handed out.
func TestATokenWithoutAKnownExpiry(t *testing.T) {
	long := time.Now().Add(-24 * time.Hour)
	r := rotating{rec: func() rotation.Record { return stored(7, nil) }, document: func() token.Document {
		return token.Document{Connection: acme, Environment: acme.Environment, Epoch: 1, Generation: 7,
			AccessToken: token.NewSecret("any"), TokenType: "Bearer", CreatedAt: long, ExpiresAt: long}
	}}
	if answer := r.ask(t); answer.Code != http.StatusOK {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}

// During a rotation a reader waits a moment for the new token instead of getting the one that is
// ending. If the rotation takes long, it gets what Secrets Manager would show.
func TestAReaderWaitsForARotationInProgress(t *testing.T) {
	for name, test := range map[string]struct {
		decided, published time.Duration // after the request
		generation         int64
	}{
		"presented":   {500 * time.Millisecond, time.Second, 8},
		"decided":     {0, time.Second, 8},
		"over":        {0, 0, 8},
		"answer lost": {time.Minute, time.Minute, 7},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := time.Now()
				generation := func(after time.Duration) int64 {
					if time.Since(asked) < after {
						return 7
					}
					return 8
				}
				r := rotating{rec: func() rotation.Record {
					if time.Since(asked) < test.decided {
						return stored(generation(test.decided), &rotation.Attempt{BegunAt: asked, Until: asked.Add(time.Minute)})
					}
					return stored(generation(test.decided), nil)
				}, document: func() token.Document {
					return lives(generation(test.published), asked.Add(time.Hour))
				}}
				answer := r.ask(t)
				if want := fmt.Sprintf(`\"generation\":%d,`, test.generation); !strings.Contains(answer.Body.String(), want) {
					t.Errorf("want %s: %s", want, answer.Body)
				}
				if waited := time.Since(asked); waited > 2*time.Second { // readers give up then
					t.Errorf("waited %v", waited)
				}
			})
		})
	}
}

// A request has one deadline: it does not wait for the rotation first, and then as long for the
// renewal.
func TestALiveTokenIsNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := time.Now()
		r := rotating{rec: func() rotation.Record {
			return stored(7, &rotation.Attempt{BegunAt: asked, Until: asked.Add(time.Minute)})
		}, document: func() token.Document { return lives(7, asked.Add(30*time.Second)) },
			do: func(context.Context) (rotation.Report, error) {
				time.Sleep(20 * time.Second) // the answer is lost
				return reports(rotation.ConnectionReport{Outcome: rotation.Unknown})
			}}
		if answer := r.ask(t); answer.Code != http.StatusOK {
			t.Errorf("%d %s", answer.Code, answer.Body)
		}
		if waited := time.Since(asked); waited > 2*time.Second { // readers give up then
			t.Errorf("waited %v", waited)
		}
	})
}

// Without a live token a reader waits for the rotation of another run, until it has a result.
func TestAReaderWithoutALiveTokenWaitsForAnotherRun(t *testing.T) {
	lease := time.Minute
	for name, test := range map[string]struct {
		ends, publishes time.Duration // of the other run
		service         bool
		status          int
		says            string
		waits           time.Duration // at most
	}{
		"succeeds":        {5 * time.Second, 5 * time.Second, false, http.StatusOK, `\"generation\":8,`, 6 * time.Second},
		"service account": {5 * time.Second, 5 * time.Second, true, http.StatusOK, `\"generation\":8,`, 6 * time.Second},
		"fails": {5 * time.Second, time.Hour, false, http.StatusServiceUnavailable, "outcome config_error",
			6 * time.Second},
		"goes on": {time.Hour, time.Hour, false, http.StatusServiceUnavailable, "has expired, and there is no newer one. ",
			lease + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := time.Now()
				attempt := &rotation.Attempt{BegunAt: asked, Until: asked.Add(lease)}
				var calls atomic.Int32
				r := rotating{rec: func() rotation.Record {
					rec := stored(7, attempt)
					if time.Since(asked) >= test.publishes {
						rec = stored(8, nil)
					} else if time.Since(asked) >= test.ends {
						rec = stored(7, nil)
					}
					rec.ServiceAccount = test.service
					return rec
				}, document: func() token.Document {
					if time.Since(asked) >= test.publishes {
						return lives(8, asked.Add(time.Hour))
					}
					return lives(7, asked.Add(-time.Second))
				}, do: func(context.Context) (rotation.Report, error) {
					calls.Add(1)
					if time.Since(asked) < test.ends && time.Now().Before(attempt.Until) {
						return reports(rotation.ConnectionReport{Outcome: rotation.Busy, RetryAt: attempt.Until})
					}
					return reports(rotation.ConnectionReport{Outcome: rotation.ConfigError})
				}}
				answer := r.ask(t)
				if answer.Code != test.status || !strings.Contains(answer.Body.String(), test.says) {
					t.Errorf("%d %s", answer.Code, answer.Body)
				}
				if waited := time.Since(asked); waited > test.waits {
					t.Errorf("waited %v", waited)
				}
				if n := calls.Load(); n > 3 { // each writes a log line
					t.Errorf("asked the engine %d times", n)
				}
			})
		})
	}
}

// The engine says that a sweep presents the refresh token; the reader gets what the sweep obtains.
func TestAnExpiredTokenWhileASweepPresents(t *testing.T) {
	m := newMachine(t, time.Hour)
	before := len(m.standIn.Presentations())
	release := make(chan struct{})
	m.standIn.Script(procoretest.Blocked(release))
	m.leave(-time.Second)
	var sweep sync.WaitGroup
	sweep.Go(func() {
		if _, err := m.rotator.Do(t.Context(), rotation.Request{Op: "sweep"}); err != nil {
			t.Error(err)
		}
	})
	for len(m.standIn.Presentations()) == before {
		time.Sleep(time.Millisecond)
	}
	m.reported = sync.OnceFunc(func() { close(release) })
	if d := m.read(); d.Generation != 2 {
		t.Errorf("generation %d", d.Generation)
	}
	sweep.Wait()
	if n := len(m.standIn.Presentations()) - before; n != 1 {
		t.Errorf("%d presentations", n)
	}
}

// The token of a disconnected connection has ended, also while the secret still shows it. Asking
// again is no use.
func TestADisconnectedConnection(t *testing.T) {
	for name, test := range map[string]struct{ after, life time.Duration }{
		"before": {0, time.Hour}, "while the reader waits": {time.Second, -time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := time.Now()
				r := rotating{rec: func() rotation.Record {
					if time.Since(asked) < test.after {
						return stored(7, nil)
					}
					return rotation.Record{Connection: acme, Revision: "r", Status: rotation.Disconnected, Epoch: 2}
				}, document: func() token.Document { return lives(7, asked.Add(test.life)) },
					do: func(context.Context) (rotation.Report, error) {
						time.Sleep(time.Second)
						return reports(rotation.ConnectionReport{Outcome: rotation.NotFound})
					}}
				answer := r.ask(t)
				if answer.Code != http.StatusBadRequest || !strings.Contains(answer.Body.String(), "InvalidRequestException") ||
					!strings.Contains(answer.Body.String(), "demo/acme is disconnected") {
					t.Errorf("%d %s", answer.Code, answer.Body)
				}
				if waited := time.Since(asked); waited != test.after {
					t.Errorf("waited %v", waited)
				}
			})
		})
	}
}

// A renewal that waits for the server too long, or that panics, is an error for the reader only.
func TestARenewalThatNeverEnds(t *testing.T) {
	for name, test := range map[string]struct {
		do    func(ctx context.Context) (rotation.Report, error)
		says  string
		waits time.Duration
	}{
		"hangs": {func(ctx context.Context) (rotation.Report, error) {
			<-ctx.Done()
			time.Sleep(time.Second) // saves the answer
			return rotation.Report{}, ctx.Err()
		}, "tokenturn is still renewing it", readapi.Limit},
		"panics": {func(context.Context) (rotation.Report, error) { panic("a secret") }, "internal error; see the log", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := time.Now()
				r := rotating{rec: func() rotation.Record { return stored(7, nil) },
					document: func() token.Document { return lives(7, asked.Add(-time.Second)) }, do: test.do}
				answer := r.ask(t)
				if answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Body.String(), test.says) ||
					strings.Contains(answer.Body.String(), "a secret") {
					t.Errorf("%d %s", answer.Code, answer.Body)
				}
				if waited := time.Since(asked); waited != test.waits {
					t.Errorf("waited %v", waited)
				}
			})
		})
	}
}

// The reader that caused a renewal gives up, and others still wait for it.
func TestARenewalOutlivesItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := time.Now()
		var generation atomic.Int64
		generation.Store(7)
		r := rotating{rec: func() rotation.Record { return stored(generation.Load(), nil) },
			document: func() token.Document {
				return lives(generation.Load(), asked.Add(time.Duration(generation.Load()-7)*time.Hour))
			},
			do: func(ctx context.Context) (rotation.Report, error) {
				select {
				case <-ctx.Done():
					return rotation.Report{}, ctx.Err()
				case <-time.After(5 * time.Second):
				}
				generation.Store(8)
				return reports(rotation.ConnectionReport{Outcome: rotation.Rotated})
			}}
		api := r.api(t)
		impatient, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var readers sync.WaitGroup
		readers.Go(func() { ask(impatient, api) })
		time.Sleep(time.Second)
		readers.Go(func() {
			if answer := ask(t.Context(), api); !strings.Contains(answer.Body.String(), `\"generation\":8,`) {
				t.Errorf("%d %s", answer.Code, answer.Body)
			}
		})
		readers.Wait()
		if waited := time.Since(asked); waited != 5*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

// When serve stops, no renewal begins that it does not wait for.
func TestNoRenewalBeginsAfterWait(t *testing.T) {
	r := rotating{rec: func() rotation.Record { return stored(7, nil) },
		document: func() token.Document { return lives(7, time.Now().Add(-time.Second)) },
		do: func(context.Context) (rotation.Report, error) {
			t.Error("a renewal began")
			return rotation.Report{}, nil
		}}
	api := r.api(t)
	api.Wait()
	if answer := ask(t.Context(), api); answer.Code != http.StatusServiceUnavailable ||
		!strings.Contains(answer.Body.String(), "is stopping") {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}
