package consent_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func withContext(ctx context.Context) func(*http.Request) {
	return func(r *http.Request) { *r = *r.WithContext(ctx) }
}

// inProgress is a callback with an exchange that goes on until release is called.
func inProgress(t *testing.T) (s *server, b *browser, address string, release func()) {
	s = newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b = s.browser()
	address = b.allow(path)
	entered, leave := make(chan struct{}), make(chan struct{})
	s.issuer.during = func() { close(entered); <-leave }
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&browser{server: s, cookies: b.cookies}).do("GET", address)
	}()
	<-entered
	return s, b, address, func() { close(leave); <-done }
}

func TestReloadDuringTheExchangeWaitsForItsResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b, address, release := inProgress(t)
		go func() {
			time.Sleep(3 * time.Second)
			release()
		}()
		begun := time.Now()
		b.wantResult(b.do("GET", address), connectedPage)
		if waited := time.Since(begun); waited < 3*time.Second || waited > 4*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestReloadDuringALongExchangeSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b, address, release := inProgress(t)
		begun := time.Now()
		want(t, b.do("GET", address), 202, stillWorkingPage)
		if waited := time.Since(begun); waited > 20*time.Second {
			t.Errorf("waited %v", waited)
		}
		release()
		b.wantResult(b.do("GET", address), connectedPage)
		if s.issuer.count() != 1 {
			t.Errorf("%d exchanges", s.issuer.count())
		}
	})
}

func TestReloadEndsWithItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, b, address, release := inProgress(t)
		defer release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.store.made()
		b.do("GET", address, withContext(ctx))
		if got := s.store.made(); got != "State" {
			t.Errorf("store calls: %s", got)
		}
	})
}
