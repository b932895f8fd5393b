package readapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/readapi"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
)

const (
	readerToken = "the-token-of-readers-0123456789"
	name        = readapi.Prefix + "demo/acme"
	get         = readapi.Path + "/get?secretId=" + name
)

var acme = token.Connection{Environment: "demo", Name: "acme"}

// machine is an API on a real store, with the real engine and a stand-in for Procore. All
// but the transport has one clock.
type machine struct {
	t       testing.TB
	dir     string
	store   *embedded.Store
	standIn *procoretest.Server
	app     procoretest.App
	rotator *rotation.Rotator
	api     *readapi.Handler
	server  *httptest.Server
	ahead   atomic.Int64 // of the clock
	answers lockedBuffer // everything that was answered or logged
	// reported, if set, is called after each renewal.
	reported func()
}

// Do implements readapi.Engine.
func (m *machine) Do(ctx context.Context, request rotation.Request) (rotation.Report, error) {
	report, err := m.rotator.Do(ctx, request)
	if m.reported != nil {
		m.reported()
	}
	return report, err
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func newMachine(t testing.TB, lifetime time.Duration) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir()}
	var err error
	m.store, err = embedded.Open(t.Context(), m.dir)
	m.must(err)
	t.Cleanup(func() { m.store.Close() })
	m.standIn = procoretest.New(procoretest.WithLifetime(lifetime), procoretest.WithClock(m.now))
	t.Cleanup(m.standIn.Close)
	m.app = m.standIn.NewApp("http://localhost:8080/callback/demo")
	value, err := procore.Credentials{ClientID: m.app.ClientID, ClientSecret: m.app.ClientSecret,
		RedirectURI: m.app.RedirectURIs[0], LoginURL: m.standIn.URL, APIURL: m.standIn.URL}.Encode()
	m.must(err)
	apps := m.store.Applications(procore.ParseApplication)
	m.must(apps.Set(t.Context(), acme.Environment, value))
	settings := rotation.Settings{Stack: "embedded", Lease: time.Minute, Quiet: 2 * time.Minute,
		RedeemTimeout: 20 * time.Second, Cadence: time.Hour, Concurrency: 4, RedeemRate: 100}
	issuer := procore.New(procore.Config{RedeemTimeout: settings.RedeemTimeout})
	log := slog.New(slog.NewTextHandler(&m.answers, &slog.HandlerOptions{Level: slog.LevelDebug}))
	m.rotator, err = rotation.NewRotator(rotation.Config{Ledger: m.store.Ledger(), SecretStore: m.store.SecretStore(),
		Sealer: m.store.Sealer(), Applications: apps, Issuer: issuer, Log: log, Now: m.now, Settings: settings})
	m.must(err)
	consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: m.store.Ledger(), Sealer: m.store.Sealer(),
		Applications: apps, Issuer: issuer, Log: log, Now: m.now, Settings: settings})
	m.must(err)
	_, err = rotation.Register(t.Context(), m.store.Ledger(), m.store.SecretStore(), settings.Stack, acme)
	m.must(err)
	pair, err := m.standIn.Issue(m.app.ClientID, procoretest.DefaultUser().Login)
	m.must(err)
	m.must(consents.Import(t.Context(), acme, pair.RefreshToken, ""))
	m.rotate()
	m.server = httptest.NewUnstartedServer(nil)
	_, port, err := net.SplitHostPort(m.server.Listener.Addr().String())
	m.must(err)
	m.api, err = readapi.New(readapi.Config{Ledger: m.store.Ledger(), Secrets: m.store.SecretStore(), Engine: m,
		Token: token.NewSecret(readerToken), Port: port, Logger: log, Now: m.now,
		Explain: func(r rotation.ConnectionReport) error { return errors.New("outcome " + string(r.Outcome)) }})
	m.must(err)
	m.server.Config.Handler = m.api.Wrap(http.NotFoundHandler())
	m.server.Start()
	t.Cleanup(func() {
		m.server.Close()
		m.api.Wait()
		m.keepsSecrets(t, m.answers.String())
	})
	return m
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) now() time.Time { return time.Now().Add(time.Duration(m.ahead.Load())) }

// leave moves the clock to when the current token has this much life left.
func (m *machine) leave(left time.Duration) {
	m.t.Helper()
	m.ahead.Add(int64(m.document().ExpiresAt.Add(-left).Sub(m.now())))
}

func (m *machine) rotate() {
	m.t.Helper()
	report, err := m.rotator.Rotate(m.t.Context(), acme)
	m.must(err)
	if r := report.Connections[0]; r.Outcome != rotation.Rotated {
		m.t.Fatalf("%s: %s", r.Outcome, r.Detail)
	}
}

// document is what the secret store has.
func (m *machine) document() token.Document {
	m.t.Helper()
	v, err := m.store.SecretStore().Current(m.t.Context(), acme)
	m.must(err)
	d, err := token.ParseDocument(v.Value)
	m.must(err)
	return d
}

// keepsSecrets searches for what a reader must never get: refresh tokens, the client secret,
// and the key.
func (m *machine) keepsSecrets(t testing.TB, said string) {
	t.Helper()
	for _, pair := range m.standIn.Live() {
		if strings.Contains(said, pair.RefreshToken.Reveal()) {
			t.Error("a refresh token was answered")
		}
	}
	if strings.Contains(said, m.app.ClientSecret.Reveal()) {
		t.Error("the client secret was answered")
	}
	key, err := os.ReadFile(filepath.Join(m.dir, embedded.KeyName))
	if err != nil {
		t.Fatal(err)
	}
	if _, text, _ := strings.Cut(strings.TrimSpace(string(key)), " "); text == "" || strings.Contains(said, text) {
		t.Error("the key was answered, or there is none")
	}
}

// ask makes a request as the machine's own programs do, unless change says otherwise.
func (m *machine) ask(path string, change func(*http.Request)) (status int, body string) {
	m.t.Helper()
	r := httptest.NewRequest(http.MethodGet, m.server.URL+path, nil)
	r.RemoteAddr = "127.0.0.1:1234"
	r.Header.Set("X-Aws-Parameters-Secrets-Token", readerToken)
	if change != nil {
		change(r)
	}
	answer := httptest.NewRecorder()
	m.server.Config.Handler.ServeHTTP(answer, r)
	_, _ = m.answers.Write(answer.Body.Bytes())
	return answer.Code, answer.Body.String()
}

// read returns the document that a reader gets.
func (m *machine) read() token.Document {
	m.t.Helper()
	status, body := m.ask(get, nil)
	var answer struct{ SecretString string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
		m.t.Fatalf("status %d: %s", status, body)
	}
	d, err := token.ParseDocument(token.NewSecret(answer.SecretString))
	m.must(err)
	return d
}

// A reader gets what the secret store shows, byte for byte, in the form of the Agent.
func TestAnswersAsTheAgentDoes(t *testing.T) {
	m := newMachine(t, time.Hour)
	stored, err := m.store.SecretStore().Current(t.Context(), acme)
	m.must(err)
	for _, more := range []string{"", "&versionStage=AWSCURRENT", "&refreshNow=true", "&versionId=" + stored.ID} {
		status, body := m.ask(get+more, nil)
		var answer struct {
			ARN, Name, VersionID, SecretString string
			VersionStages                      []string
			CreatedDate                        string
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
			t.Fatalf("%q: %d %v %s", more, status, err, body)
		}
		if answer.Name != name || answer.VersionID != stored.ID || answer.SecretString != stored.Value.Reveal() ||
			!strings.HasSuffix(answer.ARN, ":secret:"+name) || len(answer.VersionStages) != 1 ||
			answer.VersionStages[0] != "AWSCURRENT" || answer.CreatedDate == "" {
			t.Errorf("%q: %s", more, body)
		}
		byARN, body := m.ask(readapi.Path+"/get?secretId="+url.QueryEscape(answer.ARN)+more, nil)
		if byARN != status || !strings.Contains(body, `"Name":"`+name+`"`) || !strings.Contains(body, `"`+answer.ARN+`"`) {
			t.Errorf("by its ARN: %d %s", byARN, body)
		}
	}
}

// Programs for Lambda and for Secrets Manager work unchanged: the environment says where the
// API is, and has the token in AWS_SESSION_TOKEN.
func TestReadersForAWSWorkUnchanged(t *testing.T) {
	m := newMachine(t, time.Hour)
	address, err := url.Parse(m.server.URL)
	m.must(err)
	t.Setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", address.Port())
	t.Setenv("AWS_SESSION_TOKEN", readerToken)
	with := func(sessionToken string) *secretsmanager.Client {
		return secretsmanager.NewFromConfig(aws.Config{Region: "local", BaseEndpoint: aws.String(m.server.URL + readapi.Path),
			Credentials: credentials.NewStaticCredentialsProvider("tokenturn", "tokenturn", sessionToken)})
	}
	client := with(readerToken)
	readers := map[string]*tokensource.Source{}
	for kind, options := range map[string][]tokensource.Option{
		"SDK": nil, "extension": {tokensource.WithCache(tokensource.Extension())}} {
		readers[kind], err = tokensource.New(client, acme.String(), options...)
		m.must(err)
	}
	cached, err := tokensource.New(noSecrets{}, acme.String(), tokensource.WithCache(tokensource.Extension()))
	m.must(err)
	if d, err := cached.Document(t.Context()); err != nil || d.Generation != 1 {
		t.Errorf("through the extension only: generation %d, %v", d.Generation, err)
	}
	for rotations := range 3 {
		var requests sync.WaitGroup
		for kind, source := range readers {
			requests.Go(func() {
				response, err := source.Client(t.Context()).Get(m.standIn.URL + "/rest/v1.0/me")
				if err != nil || response.StatusCode != http.StatusOK {
					t.Errorf("%s, after %d rotations: %v %v", kind, rotations, response, err)
					return
				}
				response.Body.Close()
			})
		}
		requests.Wait()
		m.rotate()
	}

	byARN := aws.String("arn:tokenturn:secretsmanager:local::secret:" + name)
	found, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: byARN})
	if err != nil || aws.ToString(found.Name) != name || aws.ToString(found.ARN) != *byARN {
		t.Errorf("by its ARN: %v %v", found, err)
	}

	source, err := tokensource.New(with("another token"), acme.String())
	m.must(err)
	if _, err := source.Token(); err == nil || !strings.Contains(err.Error(), "UnrecognizedClientException") {
		t.Errorf("without the token: %v", err)
	}
}

type noSecrets struct{}

func (noSecrets) GetSecretValue(context.Context, *secretsmanager.GetSecretValueInput,
	...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	return nil, errors.New("Secrets Manager was asked")
}

// A secret that someone filled with another connection's token gives no token.
func TestADocumentOfAnotherConnection(t *testing.T) {
	r := rotating{rec: func() rotation.Record { return stored(7, nil) }, document: func() token.Document {
		d := lives(7, time.Now().Add(time.Hour))
		d.Connection.Name = "other"
		return d
	}}
	if answer := r.ask(t); answer.Code != http.StatusInternalServerError ||
		strings.Contains(answer.Body.String(), "SecretString") {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}

// Whatever a reader asks for, with the right token or without, it gets access tokens of
// connections and nothing else.
func TestNothingElseCanBeRead(t *testing.T) {
	m := newMachine(t, time.Hour)
	m.rotate() // so that there are other versions
	versions, err := m.store.SecretStore().Versions(t.Context(), acme)
	m.must(err)
	_, err = m.store.SecretStore().Current(t.Context(), token.Connection{Environment: "demo", Name: "nobody"})
	if !errors.Is(err, rotation.ErrNoSecret) {
		t.Fatal(err)
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	post := func(operation, body string) func(*http.Request) {
		return func(r *http.Request) {
			r.Method, r.Body = http.MethodPost, io.NopCloser(strings.NewReader(body))
			r.Header.Set("X-Amz-Target", operation)
			r.Header.Set("X-Amz-Security-Token", readerToken)
		}
	}
	withoutToken := func(r *http.Request) { r.Header.Del("X-Aws-Parameters-Secrets-Token") }
	unknown := readapi.Path + "/get?secretId=" + readapi.Prefix + "demo/nobody"
	for _, method := range []string{http.MethodHead, http.MethodPost} {
		r := httptest.NewRequestWithContext(t.Context(), method, get, nil)
		r.Host, r.RemoteAddr = m.server.Listener.Addr().String(), "127.0.0.1:1"
		answer := httptest.NewRecorder()
		m.api.ServeHTTP(answer, r)
		if allow := answer.Header().Get("Allow"); answer.Code != http.StatusMethodNotAllowed || allow != http.MethodGet {
			t.Errorf("%s: %d, allowed: %q", method, answer.Code, allow)
		}
	}
	for what, test := range map[string]struct {
		path   string
		change func(*http.Request)
		status int
		says   string
	}{
		"no token":          {get, withoutToken, 403, "does not have the token"},
		"wrong token":       {get, header("X-Aws-Parameters-Secrets-Token", readerToken+"x"), 403, "does not have the token"},
		"another host":      {get, func(r *http.Request) { r.Host = "evil.example" }, 403, "The API is at http://localhost:"},
		"another port":      {get, func(r *http.Request) { r.Host = "localhost:1" }, 403, "The API is at http://localhost:"},
		"another machine":   {get, func(r *http.Request) { r.RemoteAddr = "192.0.2.1:1" }, 403, "same machine"},
		"through a proxy":   {get, header("X-Forwarded-For", "192.0.2.1"), 403, "same machine"},
		"page of our own":   {get, header("Origin", m.server.URL), 403, "not for browsers"},
		"address bar":       {get, header("Sec-Fetch-Site", "none"), 403, "not for browsers"},
		"method":            {get, func(r *http.Request) { r.Method = http.MethodPut }, 405, "GET requests only"},
		"another path":      {readapi.Path + "/put", nil, 404, "no such path"},
		"no name":           {readapi.Path + "/get", nil, 400, "secretId is the name"},
		"app credentials":   {readapi.Path + "/get?secretId=tokenturn/app/demo", nil, 400, "secretId is the name"},
		"up":                {get + "/../../app/demo", nil, 400, "secretId is the name"},
		"unknown":           {unknown, nil, 400, "no connection demo/nobody"},
		"pending version":   {get + "&versionStage=AWSPENDING", nil, 400, "AWSCURRENT only"},
		"previous version":  {get + "&versionStage=AWSPREVIOUS", nil, 400, "AWSCURRENT only"},
		"version by its id": {get + "&versionId=" + versions[1].ID, nil, 400, "AWSCURRENT only"},
		"refreshNow":        {get + "&refreshNow=1", nil, 400, "refreshNow is true or false"},
		"another operation": {readapi.Path, post("secretsmanager.PutSecretValue", `{}`), 400, "UnknownOperation"},
		"another service":   {readapi.Path, post("TrentService.Decrypt", `{}`), 400, "UnknownOperation"},
		"broken body":       {readapi.Path + "/", post("secretsmanager.GetSecretValue", `{`), 400, "SerializationException"},
		"large body": {readapi.Path, post("secretsmanager.GetSecretValue", strings.Repeat(" ", 1<<20)), 400,
			"SerializationException"},
		"app credentials by the SDK": {readapi.Path, post("secretsmanager.GetSecretValue",
			`{"SecretId":"tokenturn/app/demo"}`), 400, "secretId is the name"},
	} {
		t.Run(what, func(t *testing.T) {
			status, body := m.ask(test.path, test.change)
			if status != test.status || !strings.Contains(body, test.says) || strings.Contains(body, "SecretString") {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	for _, host := range []string{"localhost", "127.0.0.1", "[::1]"} {
		port := m.server.URL[strings.LastIndex(m.server.URL, ":"):]
		if status, body := m.ask(get, func(r *http.Request) { r.Host = host + port }); status != http.StatusOK {
			t.Errorf("%s: %d %s", host, status, body)
		}
	}
	_, err = m.store.Deletions().Schedule(t.Context(), acme, 7*24*time.Hour)
	m.must(err)
	if status, body := m.ask(get, nil); status != http.StatusBadRequest || !strings.Contains(body, "is disconnected") {
		t.Errorf("disconnected: %d %s", status, body)
	}
}

// For every request with the token of readers, no answer contains a refresh token, the client
// secret or the key.
func FuzzServeHTTP(f *testing.F) {
	m := newMachine(f, time.Hour)
	f.Add("GET", "/secretsmanager/get", "secretId="+name, "", "")
	f.Add("GET", "/secretsmanager/get", "secretId="+name+"&versionStage=AWSPENDING", "", "")
	f.Add("POST", "/secretsmanager/", "", "secretsmanager.GetSecretValue", `{"SecretId":"`+name+`"}`)
	f.Add("POST", "/secretsmanager", "", "secretsmanager.GetSecretValue", `{"SecretId":"tokenturn/app/demo"}`)
	f.Fuzz(func(t *testing.T, method, path, query, target, body string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query},
			Host: m.server.Listener.Addr().String(), RemoteAddr: "127.0.0.1:1", Body: io.NopCloser(strings.NewReader(body)),
			Header: http.Header{"X-Aws-Parameters-Secrets-Token": {readerToken}, "X-Amz-Security-Token": {readerToken},
				"X-Amz-Target": {target}}}
		answer := httptest.NewRecorder()
		m.api.ServeHTTP(answer, r)
		m.keepsSecrets(t, answer.Body.String())
		if answer.Code == http.StatusOK && !strings.Contains(answer.Body.String(), `"Name":"`+name+`"`) {
			t.Errorf("%s", answer.Body)
		}
	})
}
