package tokensource_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/tokensourcetest"
)

// layer simulates the AWS Parameters and Secrets Lambda Extension: it keeps its first value
// for the whole test, however often the secret is rotated.
type layer struct {
	secret *tokensourcetest.Secret

	mu     sync.Mutex
	status int // answered instead, if not 0
	body   string
	kept   []byte
	calls  int
}

func (l *layer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	query := r.URL.Query()
	switch {
	case l.status != 0:
		http.Error(w, l.body, l.status)
	case r.Header.Get("X-Aws-Parameters-Secrets-Token") != "session":
		http.Error(w, "no permission", http.StatusUnauthorized)
	case r.Method != http.MethodGet || r.URL.Path != "/secretsmanager/get" ||
		query.Get("secretId") != "tokenturn/connection/"+acme || query.Get("versionStage") != "AWSCURRENT":
		http.Error(w, "what?", http.StatusBadRequest)
	default:
		if l.kept == nil {
			value, _ := l.secret.Document().Encode()
			l.kept, _ = json.Marshal(map[string]any{"ARN": "arn", "Name": query.Get("secretId"), "SecretString": value.Reveal(),
				"VersionStages": []string{"AWSCURRENT"}})
		}
		_, _ = w.Write(l.kept)
	}
}

// start serves the layer at the port that Lambda names.
func (l *layer) start(t *testing.T) {
	t.Helper()
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", u.Port())
	t.Setenv("AWS_SESSION_TOKEN", "session")
}

func TestExtensionAnswersInPlaceOfSecretsManager(t *testing.T) {
	secret := tokensourcetest.New(acme)
	l := &layer{secret: secret}
	l.start(t)
	expect(t, newSource(t, secret, tokensource.WithCache(tokensource.Extension())), secret.Document())
	expect(t, newSource(t, secret, tokensource.WithCache(tokensource.Extension())), secret.Document())
	if l.calls != 2 || secret.Reads() != 0 {
		t.Errorf("%d calls of the extension, %d reads of Secrets Manager", l.calls, secret.Reads())
	}
}

// The extension continues to serve the token that a rotation invalidated. The request is
// still repeated with the new one, and the old one is not used again.
func TestReadAfterARefusalPassesTheExtension(t *testing.T) {
	secret := tokensourcetest.New(acme)
	l := &layer{secret: secret}
	l.start(t)
	api := httptest.NewServer(secret.Protect(echo))
	defer api.Close()
	secret.Edit(func(d *token.Document) { d.APIURL = api.URL })
	source := newSource(t, secret, tokensource.WithCache(tokensource.Extension()))
	expect(t, source, secret.Document())
	secret.Rotate()
	client := source.Client(t.Context())
	for range 3 {
		if status, body := get(t, client, request(t, "POST", api.URL, strings.NewReader("x"))); status != 200 ||
			body != "POST x " {
			t.Errorf("%d %q", status, body)
		}
	}
	if l.calls != 1 || secret.Reads() != 1 {
		t.Errorf("%d calls of the extension, %d reads of Secrets Manager", l.calls, secret.Reads())
	}
	expect(t, source, secret.Document())
}

// After any failure of the extension, the source reads Secrets Manager and uses its answer.
func TestExtensionThatIsOfNoUse(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
	}{
		"not ready":         {http.StatusBadRequest, "not ready to serve traffic, please wait"},
		"denied":            {http.StatusBadRequest, `{"message":"AccessDeniedException"}`},
		"answers no JSON":   {http.StatusOK, "<html>"},
		"answers no secret": {http.StatusOK, `{"Name":"other"}`},
		"answers no token":  {http.StatusOK, `{"SecretString":"{}"}`},
	} {
		t.Run(name, func(t *testing.T) {
			secret := tokensourcetest.New(acme)
			l := &layer{status: test.status, body: test.body}
			l.start(t)
			expect(t, newSource(t, secret, tokensource.WithCache(tokensource.Extension())), secret.Document())

			secret.Fail(&types.ResourceNotFoundException{})
			_, err := newSource(t, secret, tokensource.WithCache(tokensource.Extension())).Token()
			if !errors.Is(err, tokensource.ErrNotFound) || strings.Contains(err.Error(), "xtension") {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("is not there", func(t *testing.T) {
		t.Setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", "1")
		secret := tokensourcetest.New(acme)
		expect(t, newSource(t, secret, tokensource.WithCache(tokensource.Extension())), secret.Document())
	})
	t.Run("has an expired token", func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		old := tokensourcetest.New(acme)
		old.Edit(func(d *token.Document) { d.ExpiresAt = d.CreatedAt })
		l := &layer{secret: old}
		l.start(t)
		expect(t, newSource(t, secret, tokensource.WithCache(tokensource.Extension())), secret.Document())
	})
}

// The extension's own errors show nothing of its answer.
func TestExtensionErrors(t *testing.T) {
	l := &layer{}
	l.start(t)
	for _, l.status = range []int{http.StatusOK, http.StatusBadRequest} {
		l.body = "canary-f00d"
		id, stage := "tokenturn/connection/"+acme, "AWSCURRENT"
		_, err := tokensource.Extension().GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &id,
			VersionStage: &stage})
		if err == nil || errors.Is(err, io.EOF) || strings.Contains(err.Error(), l.body) {
			t.Errorf("error %v", err)
		}
	}
}

// hourly keeps a secret for an hour, as the caching libraries of AWS do by default.
type hourly struct {
	secret *tokensourcetest.Secret
	kept   string
	until  time.Time
}

func (h *hourly) GetSecretStringWithContext(_ context.Context, id string) (string, error) {
	if id != "tokenturn/connection/"+acme {
		return "", errors.New("no such secret")
	}
	if now := time.Now(); now.After(h.until) {
		value, err := h.secret.Document().Encode()
		if err != nil {
			return "", err
		}
		h.kept, h.until = value.Reveal(), now.Add(time.Hour)
	}
	return h.kept, nil
}

// A library that keeps the secret for an hour causes one 401 after each rotation, and no failed request.
func TestCachingLibrary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		secret.Edit(func(d *token.Document) { d.APIURL = apiURL })
		network := &handled{Handler: secret.Protect(echo)}
		source := newSource(t, secret, tokensource.WithCache(fromLibrary{&hourly{secret: secret}}))
		client := &http.Client{Transport: source.Transport(network)}
		const rotations, between = 20, 20
		for range rotations {
			for range between {
				if status, _ := get(t, client, request(t, "GET", apiURL, nil)); status != 200 {
					t.Errorf("status %d", status)
				}
				time.Sleep(time.Minute)
			}
			secret.Rotate()
		}
		if calls := network.calls.Load(); calls > rotations*(between+1) || secret.Reads() > rotations {
			t.Errorf("%d calls of the API for %d requests, %d reads around the cache", calls, rotations*between, secret.Reads())
		}
	})
}

// Every answer of the extension gives a document, or an error that contains nothing of
// the answer.
func FuzzExtension(f *testing.F) {
	secret := tokensourcetest.New(acme)
	value, err := secret.Document().Encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{value.Reveal(), `{"format":1}`, "",
		`{"format":1,"connection":"sandbox/other","access_token":"canary-a","expires_at":"2026-11-21T23:30:00Z"}`} {
		answer, _ := json.Marshal(map[string]any{"SecretString": text})
		f.Add(string(answer))
	}
	f.Add(`{"SecretString":null}`)
	f.Add(`[`)
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w,
			body)
	}))
	f.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		f.Fatal(err)
	}
	f.Setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", u.Port())
	f.Setenv("AWS_SESSION_TOKEN", "session")
	f.Fuzz(func(t *testing.T, answer string) {
		body = answer
		out, err := tokensource.Extension().GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{
			SecretId: new("tokenturn/connection/" + acme), VersionStage: new("AWSCURRENT")})
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("the error shows the answer: %v", err)
		}
		if err == nil && out.SecretString != nil {
			_, _ = token.ParseDocument(token.NewSecret(*out.SecretString))
		}
	})
}
