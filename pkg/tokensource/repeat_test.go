package tokensource_test

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource/tokensourcetest"
)

// A request cannot use a newer token that has expired, and must not use one if the
// connection's API has moved to another host.
func TestNewerTokenThatDoesNotFit(t *testing.T) {
	for name, edit := range map[string]func(*token.Document){
		"expired": func(d *token.Document) { d.ExpiresAt = time.Now().Add(-time.Second) },
		"moved":   func(d *token.Document) { d.APIURL = "https://moved.example.com" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				secret := tokensourcetest.New(acme)
				_, client, network := newClient(t, secret, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					secret.Rotate()
					secret.Edit(edit)
					w.WriteHeader(http.StatusUnauthorized)
				}))
				if status, _ := get(t, client, request(t, "GET", apiURL, nil)); status != 401 || network.calls.Load() != 1 {
					t.Errorf("status %d after %d calls", status, network.calls.Load())
				}
			})
		})
	}
}

// A 401 that arrives when a newer token is already known says nothing about the newer one.
func TestLateRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		_, client, _ := newClient(t, secret, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				time.Sleep(5 * time.Second)
			}
			if r.Header.Get("Authorization") != "Bearer "+secret.Document().AccessToken.Reveal() {
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		ok := func(path string) {
			if status, _ := get(t, client, request(t, "GET", apiURL+path, nil)); status != 200 {
				t.Errorf("%s: status %d", path, status)
			}
		}
		var slow sync.WaitGroup
		slow.Go(func() { ok("/slow") })
		time.Sleep(2 * time.Second)
		secret.Rotate()
		ok("/")
		slow.Wait()
		ok("/")
		if secret.Reads() != 2 {
			t.Errorf("%d reads", secret.Reads())
		}
	})
}
