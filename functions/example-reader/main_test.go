package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource/tokensourcetest"
)

const company = "4264807"

// harness runs the function with a Secrets Manager and an API.
type harness struct {
	t       *testing.T
	secret  *tokensourcetest.Secret
	api     *procoretest.Server
	app     procoretest.App
	handler lambda.Handler

	mu    sync.Mutex
	calls []string // of AWS
}

func newHarness(t *testing.T, environ map[string]string) *harness {
	b := &harness{t: t, secret: tokensourcetest.New("sandbox/acme"), api: procoretest.New()}
	t.Cleanup(b.api.Close)
	b.app = b.api.NewApp("https://example.com/callback/sandbox")
	b.rotate()
	aws := httptest.NewServer(b)
	t.Cleanup(aws.Close)
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": aws.URL, "AWS_REGION": "us-east-1",
		"AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example", "AWS_CONFIG_FILE": os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": ""} {
		t.Setenv(name, value)
	}
	err := run(t.Context(), func(name string) string { return environ[name] }, func(h lambda.Handler) { b.handler = h })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rotate puts a token that the API accepts into the secret, and ends the previous one.
func (b *harness) rotate() {
	b.api.RevokeAll(b.app.ClientID, procoretest.DefaultUser().Login)
	pair, err := b.api.Issue(b.app.ClientID, procoretest.DefaultUser().Login)
	if err != nil {
		b.t.Fatal(err)
	}
	b.secret.Rotate()
	b.secret.Edit(func(d *token.Document) { d.AccessToken, d.APIURL, d.CompanyID = pair.AccessToken, b.api.URL, company })
}

// ServeHTTP answers as Secrets Manager, and as Lambda with the rotate function, would.
func (b *harness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if strings.Contains(r.URL.Path, "/functions/rotate/invocations") {
		b.calls = append(b.calls, "Invoke")
		b.rotate()
		_, _ = w.Write([]byte(`{"op":"ensure","connections":[{"connection":"sandbox/acme","outcome":"rotated"}]}`))
		return
	}
	var in struct{ SecretId, VersionStage string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.SecretId != "tokenturn/connection/sandbox/acme" ||
		in.VersionStage != "AWSCURRENT" {
		http.Error(w, `{"__type":"ValidationException"}`, http.StatusBadRequest)
		return
	}
	b.calls = append(b.calls, "GetSecretValue")
	value, err := b.secret.Document().Encode()
	if err != nil {
		b.t.Error(err)
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"SecretString": value.Reveal()})
}

func (b *harness) invoke(event string) string {
	b.t.Helper()
	answer, err := b.handler.Invoke(context.Background(), []byte(event))
	if err != nil {
		return err.Error()
	}
	return string(answer)
}

const five = `[{"id":1,"name":"Project 1"},{"id":2,"name":"Project 2"},{"id":3,"name":"Project 3"},{"id":4,"name":"Project 4"},{"id":5,"name":"Project 5"}]`

func TestProjects(t *testing.T) {
	b := newHarness(t, map[string]string{"TOKENTURN_CONNECTION": "sandbox/acme"})
	for range 3 {
		for _, event := range []string{`{}`, `{"company_id":"` + company + `"}`} {
			if got := b.invoke(event); got != five {
				t.Errorf("%s: %s", event, got)
			}
		}
		b.rotate() // as between two events
	}
	if len(b.calls) != 3 {
		t.Errorf("called %v", b.calls)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	b := newHarness(t, map[string]string{"TOKENTURN_CONNECTION": "sandbox/acme"})
	if got := b.invoke(`{"company_id":"1"}`); !strings.Contains(got, "company 1, page 1: the API answers 403") {
		t.Errorf("another company: %s", got)
	}
	b = newHarness(t, map[string]string{"TOKENTURN_CONNECTION": "sandbox/acme"})
	b.secret.Edit(func(d *token.Document) { d.CompanyID = "" })
	if got := b.invoke(`{}`); !strings.Contains(got, "name it in the event as company_id") {
		t.Errorf("no company: %s", got)
	}
	err := run(t.Context(), func(string) string { return "" }, func(lambda.Handler) { t.Error("started") })
	if err == nil || !strings.Contains(err.Error(), "TOKENTURN_CONNECTION") {
		t.Errorf("no connection: %v", err)
	}
}

// With the rotate function's name, a token that is about to expire is renewed first.
func TestEnsure(t *testing.T) {
	b := newHarness(t, map[string]string{"TOKENTURN_CONNECTION": "sandbox/acme", "TOKENTURN_ROTATE_FUNCTION": "rotate"})
	b.secret.Edit(func(d *token.Document) {
		d.CreatedAt, d.ExpiresAt = d.CreatedAt.Add(-tokensourcetest.Lifetime), d.ExpiresAt.Add(-tokensourcetest.Lifetime)
	})
	if got := b.invoke(`{}`); got != five {
		t.Error(got)
	}
	if got := strings.Join(b.calls, " "); got != "GetSecretValue Invoke GetSecretValue" {
		t.Errorf("called %s", got)
	}
}
