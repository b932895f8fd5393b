package procore

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestCompanies(t *testing.T) {
	b := newHarness(t)
	pair := b.issue(t)
	b.Uninstall(b.app.ClientID, 4264807) // the list does not depend on an installation
	got, err := b.issuer.Companies(t.Context(), b.app, pair.AccessToken, "")
	if want := []Company{{"4264807", "Company 4264807"}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := b.issuer.Companies(t.Context(), b.app, token.NewSecret("canary"), ""); err == nil ||
		strings.Contains(err.Error(), "canary") {
		t.Errorf("a made-up token: %v", err)
	}
}

// A service account sees its companies only with the number of the one it works in.
func TestCompaniesOfAServiceAccount(t *testing.T) {
	b := newHarness(t)
	registered := b.NewApp()
	registered.ServiceAccount = []int64{42}
	b.Register(registered)
	b.app.ClientID, b.app.ClientSecret = registered.ClientID, registered.ClientSecret
	answer := b.issuer.Redeem(t.Context(), b.app, rotation.Grant{ClientCredentials: true})
	access := b.issuer.Parse(answer.Body).Pair.AccessToken
	if got, err := b.issuer.Companies(t.Context(), b.app, access, "42"); err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := b.issuer.Companies(t.Context(), b.app, access, ""); err == nil {
		t.Errorf("without a company: %v", got)
	}
}

// Names come from a server and go to a terminal; ids need 64 bits.
func TestCompaniesOfOtherServers(t *testing.T) {
	status, body := http.StatusOK, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer server.Close()
	b := newHarness(t)
	b.app.APIURL = server.URL
	list := func() ([]Company, error) { return b.issuer.Companies(t.Context(), b.app, token.NewSecret("x"), "") }

	body = `[{"id":9007199254740993,"name":"A \u001b[2J\u0007B"},{"id":"7","name":"` + strings.Repeat("é", 100) +
		`"},{"id":"../x","name":"no number"},{"name":"no id"}]`
	want := []Company{{"9007199254740993", "A [2JB"}, {"7", strings.Repeat("é", 80)}}
	if got, err := list(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, body = range []string{"<h1>canary</h1>", `{"errors":["canary"]}`} {
		if got, err := list(); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, %v", body, got, err)
		}
	}
	status = http.StatusTooManyRequests
	if got, err := list(); err == nil || !strings.Contains(err.Error(), "429") {
		t.Errorf("asked to wait: %v, %v", got, err)
	}
}
