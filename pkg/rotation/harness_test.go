package rotation_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	acme = token.Connection{Environment: "sandbox", Name: "acme"}
	app  = rotationtest.Sandbox
	pat  = rotation.Identity{ClientID: app.ClientID, ResourceOwner: "7", Login: "pat@example.com", Company: "42"}
)

var redirectURI = app.RedirectURI

// harness is one installation with an authorization server, all in memory.
type harness struct {
	*rotationtest.Harness
	settings rotation.Settings
	inForce  atomic.Pointer[rotationtest.Gate]

	issuer rotation.Issuer // that the actors of a scenario meet; nil: Issuer as it is
	epoch  int64           // that callbacks start from
	right  token.Secret    // the refresh token that somebody knows: of a quarantined answer, or of the current pair
}

func newHarness(p rotationtest.Personality) *harness {
	b := &harness{settings: rotation.DefaultSettings("harness")}
	b.Harness = rotationtest.NewHarness(func(ctx context.Context, at rotationtest.Passage) rotationtest.Fault {
		if g := b.inForce.Load(); g != nil && *g != nil {
			return (*g)(ctx, at)
		}
		return rotationtest.Fault{}
	}, p)
	return b
}

// gate puts one gate before and after everything, from now on.
func (b *harness) gate(g rotationtest.Gate) { b.inForce.Store(&g) }

// rotator is a new process with nothing in memory.
func (b *harness) rotator() *rotation.Rotator {
	return b.rotatorWith(cmp.Or[rotation.Issuer](b.issuer, b.Issuer))
}

func (b *harness) rotatorWith(issuer rotation.Issuer) *rotation.Rotator {
	return b.rotatorBut(func(cfg *rotation.Config) { cfg.Issuer = issuer })
}

// rotatorBut is a process with a changed configuration.
func (b *harness) rotatorBut(change func(*rotation.Config)) *rotation.Rotator {
	cfg := rotation.Config{Ledger: b.Ledger, SecretStore: b.SecretStore, Sealer: b.Sealer, Applications: b.Applications,
		Issuer:    b.Issuer,
		FollowUps: b.FollowUps, RateLimiter: b.RateLimiter, Notifier: b.Notifier, NoticeClaims: b.NoticeClaims,
		Log: b.logger(), Settings: b.settings}
	change(&cfg)
	r, err := rotation.NewRotator(cfg)
	if err != nil {
		panic(err)
	}
	return r
}

func (b *harness) consents() *rotation.Consents {
	return b.consentsBut(func(*rotation.ConsentsConfig) {})
}

func (b *harness) consentsBut(change func(*rotation.ConsentsConfig)) *rotation.Consents {
	cfg := rotation.ConsentsConfig{Ledger: b.Ledger, Sealer: b.Sealer, Applications: b.Applications,
		Issuer: cmp.Or[rotation.Issuer](b.issuer, b.Issuer), FollowUps: b.FollowUps, Notifier: b.Notifier,
		NoticeClaims: b.NoticeClaims, Log: b.logger(), Settings: b.settings}
	change(&cfg)
	c, err := rotation.NewConsents(cfg)
	if err != nil {
		panic(err)
	}
	return c
}

func (b *harness) logger() *slog.Logger { return b.Logger() }

// consent lets a person connect acme.
func (b *harness) consent(ctx context.Context, who, expect rotation.Identity) (rotation.ConsentResult, error) {
	rec, err := rotation.Register(ctx, b.Ledger, b.SecretStore, b.settings.Stack, acme)
	if err != nil {
		return "", err
	}
	exchange, err := b.consents().Prepare(ctx, acme, rec.Epoch)
	if err != nil {
		return "", err
	}
	code := b.Issuer.Authorize(who, redirectURI, "")
	return exchange.Redeem(ctx, rotation.Consent{Code: code, RedirectURI: redirectURI, Expect: expect})
}

// connect consents and publishes.
func (b *harness) connect(t *testing.T) {
	t.Helper()
	result, err := b.consent(t.Context(), pat, rotation.Identity{Company: "42"})
	if err != nil || result != rotation.Connected {
		t.Fatalf("consent: %s, %v", result, err)
	}
	b.deliver(t.Context())
	// listed, where the clocks differ, and left as it is
	if report := b.sweep(t); len(report.Connections) != report.Outcomes[rotation.Fresh] {
		t.Fatalf("a sweep right after connecting found %+v to do", report.Connections)
	}
}

// deliver carries out the follow-ups that are due.
func (b *harness) deliver(ctx context.Context) {
	for _, request := range b.FollowUps.Take() {
		run, cancel := rotationtest.Within(rotationtest.Scheduled(ctx), runTime)
		_, err := b.rotator().Do(run, request)
		cancel()
		if err != nil {
			panic(err)
		}
	}
}

func (b *harness) sweep(t *testing.T) rotation.Report {
	t.Helper()
	report, err := b.rotator().Sweep(rotationtest.Scheduled(t.Context()))
	if err != nil {
		t.Fatalf("sweep: %v", err)
	}
	return report
}

// rotate rotates acme, due or not, and returns what is reported of it.
func (b *harness) rotate(t *testing.T) rotation.ConnectionReport {
	t.Helper()
	report, err := b.rotator().Rotate(t.Context(), acme)
	if err != nil {
		t.Fatalf("rotate: %v", err)
	}
	return report.Connections[0]
}

func (b *harness) record(t *testing.T) rotation.Record {
	t.Helper()
	rec, _, err := b.Ledger.Load(t.Context(), acme)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// read is what a reader sees.
func (b *harness) read(ctx context.Context) (token.Document, error) {
	v, err := b.SecretStore.Current(ctx, acme)
	if err != nil {
		return token.Document{}, err
	}
	return token.ParseDocument(v.Value)
}

// works returns why the connection does not work. The secret store must show what the
// ledger decided, no attempt and no other response may be left, and the issuer must accept
// both tokens.
func (b *harness) works(ctx context.Context) error {
	rec, responses, err := b.Ledger.Load(ctx, acme)
	if err != nil {
		return err
	}
	doc, err := b.read(ctx)
	if err != nil {
		return err
	}
	switch {
	case rec.Status != rotation.Active:
		return fmt.Errorf("status %s", rec.Status)
	case doc.Epoch != rec.Epoch || doc.Generation != rec.Generation:
		return fmt.Errorf("the secret store shows (%d,%d), the ledger has (%d,%d)", doc.Epoch, doc.Generation, rec.Epoch,
			rec.Generation)
	case rec.Attempt != nil:
		return errors.New("an attempt is left")
	case len(responses) != 1:
		return fmt.Errorf("%d live responses, want the current one only", len(responses))
	case !rec.ServiceAccount && !b.Issuer.Takes(rec.Current.Fingerprint):
		return errors.New("the issuer does not take the current refresh token")
	case time.Now().Before(doc.ExpiresAt) && !b.Issuer.Accepts(ctx, doc.AccessToken):
		return errors.New("the issuer does not accept the published access token")
	}
	return nil
}

// presentations counts how often each refresh token was presented.
func (b *harness) presentations() map[token.Fingerprint]int {
	counts := map[token.Fingerprint]int{}
	for _, e := range b.Journal.Entries() {
		if p, ok := e.Effect.(rotationtest.Presented); ok && !p.Code {
			counts[p.What]++
		}
	}
	return counts
}

func (b *harness) notices() (kinds []string) {
	for _, n := range b.Notifier.Notices() {
		kinds = append(kinds, n.Kind)
	}
	return kinds
}
