// Package events_test feeds the sample HTTP events of this directory to the real
// consent handler, on the embedded store, the way the callback function does. The
// other samples are tested in package trigger, which decodes them.
package events_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	lambdaevents "github.com/aws/aws-lambda-go/events"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/lambdahttp"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// now is a minute before the samples' time.
var now = time.Date(2026, 11, 21, 21, 59, 2, 0, time.UTC)

var acme = token.Connection{Environment: "sandbox", Name: "acme"}

// site is a callback function with an invitation for the samples connect and
// connect-start, and a state for the callback samples.
type site struct {
	store invitations.Store
	log   bytes.Buffer
	serve func(*testing.T, lambdaevents.APIGatewayV2HTTPRequest) lambdaevents.APIGatewayV2HTTPResponse

	mu        sync.Mutex
	presented []string // codes that the token endpoint saw
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{}
	issuer := httptest.NewServer(http.HandlerFunc(s.refuseCode))
	t.Cleanup(issuer.Close)
	store, err := embedded.Open(t.Context(), t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })

	applications := store.Applications(procore.ParseApplication)
	credentials, err := procore.Credentials{ClientID: "example-client",
		ClientSecret: token.NewSecret("example-secret-not-a-real-one"),
		RedirectURI:  "https://abcdefghij.execute-api.us-east-1.amazonaws.com/callback/sandbox", LoginURL: issuer.URL,
		APIURL: issuer.URL}.Encode()
	must(t, err)
	must(t, applications.Set(t.Context(), acme.Environment, credentials))
	_, err = rotation.Register(t.Context(), store.Ledger(), store.SecretStore(), "example", acme)
	must(t, err)

	clock := func() time.Time { return now }
	consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: store.Ledger(), Sealer: store.Sealer(),
		Applications: applications,
		Issuer:       procore.New(procore.Config{}), Now: clock, Settings: rotation.DefaultSettings("example")})
	must(t, err)
	handler, err := consent.New(consent.Config{Store: store.Consents(), Consents: consents, Applications: applications,
		AuthorizeURL: procore.AuthorizeURL, PublicURL: "https://abcdefghij.execute-api.us-east-1.amazonaws.com",
		Logger: slog.New(slog.NewJSONHandler(&s.log, nil)), Now: clock})
	must(t, err)
	s.store = store.Consents()
	s.serve = func(t *testing.T, event lambdaevents.APIGatewayV2HTTPRequest) lambdaevents.APIGatewayV2HTTPResponse {
		t.Helper()
		answer, err := lambdahttp.Handler(handler)(t.Context(), event)
		must(t, err)
		return answer
	}
	s.prepare(t)
	return s
}

// refuseCode is a token endpoint that refuses every code.
func (s *site) refuseCode(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var grant struct{ Code string }
	_ = json.Unmarshal(body, &grant)
	s.mu.Lock()
	s.presented = append(s.presented, grant.Code)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
}

// prepare stores the rows that the samples need.
func (s *site) prepare(t *testing.T) {
	t.Helper()
	link, callback := sample(t, "connect"), sample(t, "callback")
	invitation := invitations.Invitation{Hash: hash(link.PathParameters["invitation"]), Connection: acme, CreatedAt: now,
		ExpiresAt: now.Add(time.Hour)}
	must(t, s.store.CreateInvitation(t.Context(), invitation))
	_, cookie, _ := strings.Cut(callback.Cookies[0], "=")
	must(t, s.store.Start(t.Context(), invitations.State{Hash: hash(callback.QueryStringParameters["state"]),
		Cookie:      hash(cookie),
		Environment: acme.Environment, Connection: acme, Invitation: invitation.Hash, CreatedAt: now,
		ExpiresAt: now.Add(10 * time.Minute)}))
}

func TestConnectShowsOneButton(t *testing.T) {
	answer := newSite(t).serve(t, sample(t, "connect"))
	if answer.StatusCode != http.StatusOK || !strings.Contains(body(t, answer), "sandbox/acme") ||
		!strings.Contains(body(t, answer), "<button") {
		t.Errorf("%d %s", answer.StatusCode, body(t, answer))
	}
}

func TestConnectStartSendsToTheAuthorizationPage(t *testing.T) {
	answer := newSite(t).serve(t, sample(t, "connect-start"))
	location, err := url.Parse(answer.Headers["Location"])
	if err != nil || answer.StatusCode != http.StatusSeeOther || location.Path != "/oauth/authorize" ||
		location.Query().Get("state") == "" {
		t.Errorf("%d %v", answer.StatusCode, answer.Headers)
	}
	if len(answer.Cookies) != 1 || !strings.HasPrefix(answer.Cookies[0], "__Host-tokenturn-") {
		t.Errorf("cookies %q", answer.Cookies)
	}
}

func TestCallbackPresentsTheCodeOnce(t *testing.T) {
	s := newSite(t)
	for range 2 { // a reload shows the result again and presents nothing
		answer := s.serve(t, sample(t, "callback"))
		if answer.StatusCode != http.StatusSeeOther || !strings.Contains(answer.Headers["Location"], "/not-connected?") {
			t.Errorf("%d %v", answer.StatusCode, answer.Headers)
		}
	}
	if len(s.presented) != 1 || s.presented[0] != "example-code-not-a-real-one" {
		t.Errorf("presented %q", s.presented)
	}
	for _, secret := range []string{"example-code-not-a-real-one", "EXAMPLESTATE", "EXAMPLECOOKIE", "example-secret"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("%s… is in the log:\n%s", secret, &s.log)
		}
	}
}

func TestDeniedCallbackPresentsNothing(t *testing.T) {
	s := newSite(t)
	answer := s.serve(t, sample(t, "callback-denied"))
	if answer.StatusCode != http.StatusSeeOther || !strings.Contains(answer.Headers["Location"], "result=denied") ||
		len(s.presented) != 0 {
		t.Errorf("%d %v, presented %q", answer.StatusCode, answer.Headers, s.presented)
	}
}

// Every sample file has a test.
func TestEverySampleIsUsed(t *testing.T) {
	files, err := filepath.Glob("*.json")
	must(t, err)
	here := []string{"connect", "connect-start", "callback", "callback-denied"}
	inTrigger, err := os.ReadFile("../pkg/trigger/trigger_test.go")
	must(t, err)
	for _, file := range files {
		name := strings.TrimSuffix(file, ".json")
		used := bytes.Contains(inTrigger, []byte(`"`+name+`"`))
		for _, h := range here {
			used = used || h == name
		}
		if !used {
			t.Errorf("no test uses %s", file)
		}
	}
}

func sample(t *testing.T, name string) lambdaevents.APIGatewayV2HTTPRequest {
	t.Helper()
	text, err := os.ReadFile(name + ".json")
	must(t, err)
	var event lambdaevents.APIGatewayV2HTTPRequest
	must(t, json.Unmarshal(text, &event))
	return event
}

func body(t *testing.T, answer lambdaevents.APIGatewayV2HTTPResponse) string {
	t.Helper()
	if !answer.IsBase64Encoded {
		return answer.Body
	}
	text, err := base64.StdEncoding.DecodeString(answer.Body)
	must(t, err)
	return string(text)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
