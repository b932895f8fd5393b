package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var acme = token.Connection{Environment: "demo", Name: "acme"}

// harness is an installation on this machine with one connection at a stand-in.
type harness struct {
	t       *testing.T
	standIn *procoretest.Server
	app     procoretest.App
	store   *embedded.Store
	issuer  *procore.Issuer
	config  doctor.Config
	later   time.Duration // how far the doctor's clock is ahead
}

func newHarness(t *testing.T, lifetime time.Duration) *harness {
	t.Helper()
	b := &harness{t: t, standIn: procoretest.New(procoretest.WithLifetime(lifetime)),
		issuer: procore.New(procore.Config{})}
	t.Cleanup(b.standIn.Close)
	var err error
	b.store, err = embedded.Open(t.Context(), t.TempDir())
	b.must(err)
	t.Cleanup(func() { b.must(b.store.Close()) })
	app := b.standIn.NewApp("http://localhost:1/callback/demo")
	b.app = app
	b.credentials(app, app.RedirectURIs[0])
	settings := rotation.DefaultSettings("harness")
	b.config = doctor.Config{Records: b.store.Ledger(), SecretStore: b.store.SecretStore(), Sealer: b.store.Sealer(),
		Applications: b.applications(),
		Issuer:       b.issuer, Settings: settings, FollowUps: true, Now: func() time.Time { return time.Now().Add(b.later) }}
	b.imported(app)
	return b
}

func (b *harness) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *harness) applications() embedded.Applications {
	return b.store.Applications(procore.ParseApplication)
}

func (b *harness) credentials(app procoretest.App, redirect string) {
	b.t.Helper()
	value, err := procore.Credentials{ClientID: app.ClientID, ClientSecret: app.ClientSecret, RedirectURI: redirect,
		LoginURL: b.standIn.URL, APIURL: b.standIn.URL}.Encode()
	b.must(err)
	b.must(b.applications().Set(b.t.Context(), "demo", value))
}

// imported connects acme with an existing pair and rotates it once.
func (b *harness) imported(app procoretest.App) {
	b.t.Helper()
	ctx, ledger, secrets := b.t.Context(), b.store.Ledger(), b.store.SecretStore()
	_, err := rotation.Register(ctx, ledger, secrets, "harness", acme)
	b.must(err)
	consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: ledger, Sealer: b.store.Sealer(),
		Applications: b.applications(), Issuer: b.issuer, Settings: b.config.Settings})
	b.must(err)
	pair, err := b.standIn.Issue(app.ClientID, procoretest.DefaultUser().Login)
	b.must(err)
	b.must(consents.Import(ctx, acme, pair.RefreshToken, "4264807"))
	rotator, err := rotation.NewRotator(rotation.Config{Ledger: ledger, SecretStore: secrets, Sealer: b.store.Sealer(),
		Applications: b.applications(), Issuer: b.issuer, Settings: b.config.Settings})
	b.must(err)
	report, err := rotator.Rotate(ctx, acme)
	b.must(err)
	if report.Outcomes[rotation.Rotated] != 1 {
		b.t.Fatalf("%+v", report)
	}
}

// found examines and returns the level and text of one finding. It checks that every
// finding says what to do and contains no secret.
func (b *harness) found(check string) (doctor.Level, string) {
	b.t.Helper()
	spent := len(b.standIn.Presentations())
	pieces, steps := 0, 0
	findings := doctor.New(b.config).Examine(b.t.Context(), func(n int) { pieces = n }, func() { steps++ })
	if steps != pieces || pieces == 0 {
		b.t.Errorf("%d of %d pieces were reported", steps, pieces)
	}
	for _, p := range b.standIn.Presentations()[spent:] {
		if p.Grant != "authorization_code" {
			b.t.Errorf("a %s was presented", p.Grant)
		}
	}
	level, text := doctor.Level(""), ""
	for _, f := range findings {
		if (f.Level == doctor.OK) != (f.Remedy == "") || f.Detail == "" {
			b.t.Errorf("%+v does not say what to do, or gives a remedy although it is ok", f)
		}
		for _, secret := range b.standIn.Secrets() {
			if strings.Contains(fmt.Sprint(f), secret.Reveal()) {
				b.t.Errorf("the finding on %s contains a secret", f.Check)
			}
		}
		if f.Check == check {
			level, text = f.Level, f.Detail+" → "+f.Remedy
		}
	}
	return level, text
}

func (b *harness) finds(check string, level doctor.Level, says string) {
	b.t.Helper()
	if gotLevel, got := b.found(check); gotLevel != level || !strings.Contains(got, says) {
		b.t.Errorf("%s: %s %q, want %s with %q", check, gotLevel, got, level, says)
	}
}

func TestHealthyInstallation(t *testing.T) {
	b := newHarness(t, 90*time.Minute)
	for check, says := range map[string]string{"settings": "a sweep every 1h", "keys": "made and opened",
		"schedule": "nothing is overdue", "app": "accepts",
		"clock": "within 20s", "connection": "generation 1.1", "secret": "valid until",
		"versions": "1 in the last 24 hours, 99 left", "token": "works in company 4264807",
		"lifetime": "access tokens live 1h"} {
		b.finds(check, doctor.OK, says)
	}
	b.finds("redirect", doctor.Warning, "→ start its server with `tokenturn serve --addr localhost:1` on that machine")
}

// A token that nobody knows the lifetime of is no problem that a rotation could solve.
func TestLifetimeThatWasNeverStated(t *testing.T) {
	b := newHarness(t, 90*time.Minute)
	b.later = 3 * time.Hour
	b.config.SecretStore = unstated{b.config.SecretStore}
	b.finds("secret", doctor.Warning, "has never said how long its access tokens live")
}

// unstated shows documents without a lifetime.
type unstated struct{ rotation.SecretStore }

func (u unstated) Current(ctx context.Context, c token.Connection) (rotation.Version, error) {
	v, err := u.SecretStore.Current(ctx, c)
	if err != nil {
		return v, err
	}
	doc, err := token.ParseDocument(v.Value)
	if err != nil {
		return v, err
	}
	doc.ExpiresAt = doc.CreatedAt
	v.Value, err = doc.Encode()
	return v, err
}

func TestTimeTellsOnTheSchedule(t *testing.T) {
	b := newHarness(t, 90*time.Minute)
	b.later = 3 * time.Hour
	b.finds("schedule", doctor.Problem, "1 connections are overdue by more than a sweep, demo/acme since")
	b.finds("secret", doctor.Problem, "its access token expired")
	b.finds("clock", doctor.Warning, "clock differs by 3h0m")
}

// A refresh with a lost answer is not in progress. tokenturn checks again at a known time.
func TestLostAnswer(t *testing.T) {
	b := newHarness(t, 90*time.Minute)
	rec, _, err := b.store.Ledger().Load(t.Context(), acme)
	b.must(err)
	begun := time.Now().UTC().Truncate(time.Second)
	rec.Attempt = &rotation.Attempt{ID: "lost", Fingerprint: rec.Current.Fingerprint, BegunAt: begun,
		Until: begun.Add(time.Minute), Presentations: 1}
	rec.DueAt = begun.Add(3 * time.Minute)
	_, err = b.store.Ledger().Write(t.Context(), rotation.Change{Record: rec})
	b.must(err)
	again := "checks again automatically at " + begun.Add(3*time.Minute).Format(time.RFC3339)
	b.later = 30 * time.Second
	b.finds("connection", doctor.OK, "was lost or unusable, or the process that refreshed it stopped; tokenturn "+
		again)
	b.finds("token", doctor.OK, "it works")
	b.later = 90 * time.Second
	b.finds("connection", doctor.Later, again)
	b.later = time.Hour
	b.finds("connection", doctor.Later, "checks again automatically with its next run")
	b.later = 90 * time.Second
	// No command can replace the token before that.
	b.standIn.RevokeAll(b.app.ClientID, procoretest.DefaultUser().Login)
	b.finds("token", doctor.Later, "has probably invalidated it, and tokenturn "+again)
	b.later = 4 * time.Minute
	b.finds("token", doctor.Problem, "replace it with: tokenturn connection rotate demo/acme")
	b.later = 0
	b.finds("token", doctor.Later, "no action is needed now: the refresh that began at "+begun.Format(time.RFC3339))
}

func TestTokensThatLiveTooShort(t *testing.T) {
	b := newHarness(t, 900*time.Second)
	b.finds("lifetime", doctor.OK, "access tokens live 1")
	b.config.FollowUps = false
	b.finds("lifetime", doctor.Problem, "TOKENTURN_QUEUE_URL")
	b = newHarness(t, 5*time.Minute)
	b.finds("lifetime", doctor.Warning, "one version every 14m24s around the clock")
	b.config.Settings.PutsPerDay = 0
	b.finds("lifetime", doctor.OK, "access tokens live")
}

func TestVersionsRunOut(t *testing.T) {
	b := newHarness(t, 90*time.Minute)
	for n := range 92 {
		b.must(b.store.SecretStore().Put(t.Context(), acme, fmt.Sprintf("version-%032d", n), token.NewSecret("{}")))
	}
	b.finds("versions", doctor.Warning, "93 in the last 24 hours, 7 left")
}

func TestSecretsThatReadersCannotUse(t *testing.T) {
	b := newHarness(t, 90*time.Minute)
	current, err := b.store.SecretStore().Current(t.Context(), acme)
	b.must(err)
	id := "version-" + strings.Repeat("0", 32)
	b.must(b.store.SecretStore().Put(t.Context(), acme, id, token.NewSecret(`{"hello":"operator"}`)))
	b.must(b.store.SecretStore().Promote(t.Context(), acme, id, current.ID))
	b.finds("secret", doctor.Problem, "not in the format that tokenturn writes → find out who wrote it")
	_, err = b.store.Deletions().Schedule(t.Context(), acme, 7*24*time.Hour)
	b.must(err)
	b.finds("secret", doctor.Problem, "tokenturn connection undo demo/acme")
}

func TestRedirect(t *testing.T) {
	b := newHarness(t, 90*time.Minute)
	status := http.StatusOK
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/connected" { // a page that visitors see
			t.Errorf("%s was asked for", r.URL.Path)
		}
		w.WriteHeader(status)
	}))
	defer callback.Close()
	app := b.standIn.NewApp()
	b.credentials(app, callback.URL+"/callback/demo")
	b.finds("redirect", doctor.OK, "answers")
	b.credentials(app, callback.URL+"/cb")
	b.finds("redirect", doctor.Warning, "→ register "+callback.URL+"/callback/demo in the Developer Portal")
	b.credentials(app, callback.URL+"/callback/demo")
	status = http.StatusNotFound
	b.finds("redirect", doctor.Warning, "→ connect with `tokenturn connection authorize`") // serve is localhost only
	b.credentials(app, procore.OutOfBand)
	b.finds("redirect", doctor.OK, "people paste a code")
	b.credentials(app, "https://localhost:1/callback/demo")
	b.finds("redirect", doctor.Problem, "people who allow access cannot return to tokenturn")
	b.config.PublicURL = "https://connect.example.com"
	b.finds("redirect", doctor.Problem, "register https://connect.example.com/callback/demo in the Developer Portal")
}

// Credentials of an environment without connections are checked where the store can list them.
func TestEnvironmentsWithoutConnections(t *testing.T) {
	b := newHarness(t, 90*time.Minute)
	b.config.Records = nobody{}
	b.finds("app", doctor.Warning, "credentials of a custom environment are checked once it has a connection")
	b.config.Environments = func(context.Context) ([]string, error) { return []string{"demo"}, nil }
	b.finds("app", doctor.OK, "accepts client id and secret")
	b.config.Environments = func(context.Context) ([]string, error) { return nil, nil }
	b.finds("app", doctor.Warning, "there are no app credentials")
}

type nobody struct{}

func (nobody) List(context.Context) ([]rotation.Record, error) { return nil, nil }

// A service account has no user and nobody who could consent again.
func TestAdviceForServiceAccounts(t *testing.T) {
	for _, health := range []procore.Health{procore.TokenRefused, procore.OtherClient, procore.NotInstalled,
		procore.NoAccess} {
		account := rotation.Record{Connection: acme, ServiceAccount: true}
		level, remedy := doctor.Advice(procore.Probe{Health: health}, account, &rotation.Refreshing{Connection: acme})
		if level != doctor.Problem || strings.Contains(remedy, "user") || strings.Contains(remedy, "consent") ||
			strings.Contains(remedy, "invite") {
			t.Errorf("%s: %s: %s", health, level, remedy)
		}
	}
}

// broken is a sealer, or a list of records, that fails.
type broken struct{ rotation.Sealer }

func (broken) DataKey(context.Context) (key, wrapped []byte, err error) {
	return nil, nil, errors.New("access denied")
}
func (broken) List(context.Context) ([]rotation.Record, error) {
	return nil, errors.New("access denied")
}

func TestStoresThatDoNotAnswer(t *testing.T) {
	b := newHarness(t, 90*time.Minute)
	b.config.Sealer, b.config.Records = broken{}, broken{}
	b.finds("keys", doctor.Problem, "no data key can be made, so nothing can be saved: access denied")
	b.finds("schedule", doctor.Problem, "the connections cannot be read: access denied")
}

func TestWorst(t *testing.T) {
	for want, levels := range map[doctor.Level][]doctor.Level{doctor.OK: {}, doctor.Warning: {doctor.OK, doctor.Warning},
		doctor.Later: {doctor.Later, doctor.Warning}, doctor.Consent: {doctor.Consent, doctor.Later},
		doctor.Problem: {doctor.OK, doctor.Problem, doctor.Consent}} {
		var findings []doctor.Finding
		for _, level := range levels {
			findings = append(findings, doctor.Finding{Level: level})
		}
		causes := doctor.Causes(findings)
		if got := doctor.Worst(findings); got != want || len(findings) > 0 && causes[len(causes)-1].Level != want {
			t.Errorf("%v: %s", levels, got)
		}
	}
}

// Findings with one remedy are one cause, whatever the connection's name and the detail.
func TestCauses(t *testing.T) {
	expired := func(name, detail string) doctor.Finding {
		return doctor.Finding{Check: "secret", Subject: name, Level: doctor.Problem, Detail: detail,
			Remedy: "run: rotate " + name}
	}
	first, second := expired("demo/a", "expired at 9"), expired("demo/b", "expired at 10")
	rest := []doctor.Finding{{Check: "token", Subject: "demo/a", Level: doctor.OK, Detail: "it works"},
		{Check: "secret", Subject: "demo/c", Level: doctor.OK}, {Check: "token", Subject: "demo/c", Level: doctor.OK},
		{Check: "secret", Subject: "demo/d", Level: doctor.Problem, Remedy: "run: undo demo/d"}}
	got := doctor.Causes(append([]doctor.Finding{first, second}, rest...))
	want := []doctor.Cause{
		{"token", doctor.OK, "", []doctor.Finding{rest[0], rest[2]}},
		{"secret", doctor.OK, "", []doctor.Finding{rest[1]}},
		{"secret", doctor.Problem, "run: rotate ENV/NAME", []doctor.Finding{first, second}},
		{"secret", doctor.Problem, "run: undo demo/d", []doctor.Finding{rest[3]}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%+v\nwant:\n%+v", got, want)
	}
}
