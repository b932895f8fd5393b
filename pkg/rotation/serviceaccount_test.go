package rotation_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// serve registers acme and makes it a service account in company 42.
func (b *harness) serve(t *testing.T) rotation.ConnectionReport {
	t.Helper()
	_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, acme)
	must(t, err)
	report, err := b.rotator().ServiceAccount(t.Context(), acme, "42")
	must(t, err)
	return report.Connections[0]
}

func TestAServiceAccountIsKeptFreshLikeAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		if got := b.serve(t); got.Outcome != rotation.Rotated || got.Epoch != 1 || got.Generation != 1 {
			t.Fatalf("%+v", got)
		}
		for hour := range 24 {
			time.Sleep(time.Hour)
			if report := b.sweep(t); report.Outcomes[rotation.Rotated] != 1 {
				t.Fatalf("hour %d: %+v", hour, report)
			}
			if err := b.works(t.Context()); err != nil {
				t.Fatalf("hour %d: %v", hour, err)
			}
		}
		doc, err := b.read(t.Context())
		if err != nil || doc.CompanyID != "42" || doc.Generation != 25 || doc.Source != "client_credentials" ||
			len(doc.SealedAnswer) == 0 {
			t.Errorf("%+v, %v", doc, err)
		}
		if kinds := b.notices(); len(kinds) != 0 {
			t.Errorf("a faultless day gave notices: %v", kinds)
		}
		if err := rotationtest.CheckAtRest(b.Harness); err != nil {
			t.Error(err)
		}
	})
}

// Asking again loses nothing, so no result is unknown: what fails is tried again after a
// short wait, without a notice.
func TestAServiceAccountAsksAgain(t *testing.T) {
	for name, c := range map[string]struct {
		gate    rotationtest.Gate
		outcome rotation.Outcome
	}{
		"503": {rotationtest.Nth(1, "issuer.Redeem", rotationtest.Before,
			rotationtest.Fault{Kind: rotationtest.Fail}), rotation.Deferred},
		"the answer is lost": {rotationtest.Nth(1, "issuer.Redeem", rotationtest.After,
			rotationtest.Fault{Kind: rotationtest.Fail}), rotation.Deferred},
		"half the answer": {rotationtest.Nth(1, "issuer.Redeem", rotationtest.After,
			rotationtest.Fault{Kind: rotationtest.Cut}), rotation.Deferred},
		"it is not saved": {rotationtest.Nth(1, "ledger.SaveResponse", rotationtest.Before,
			rotationtest.Fault{Kind: rotationtest.Fail}), rotation.Deferred},
		"no connection": {rotationtest.Nth(1, "issuer.Redeem", rotationtest.Before,
			rotationtest.Fault{Kind: rotationtest.Unsent}), rotation.Deferred},
		"429": {rotationtest.Nth(1, "issuer.Redeem", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Throttle}),
			rotation.Deferred},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.serve(t)
				time.Sleep(time.Hour)
				b.gate(c.gate)
				if report := b.sweep(t); report.Outcomes[c.outcome] != 1 {
					t.Errorf("%+v", report)
				}
				if rec := b.record(t); rec.Attempt != nil || rec.Status != rotation.Active || rec.Failure() == nil {
					t.Errorf("%+v", rec)
				}
				if at := b.FollowUps.Next(); time.Until(at) > 2*time.Minute {
					t.Errorf("the next run is asked for at %v", at)
				}
				time.Sleep(2 * time.Minute)
				b.deliver(t.Context())
				if err := b.works(t.Context()); err != nil || b.record(t).Generation != 2 {
					t.Errorf("%v\n%s", err, b.Journal.String())
				}
				if kinds := b.notices(); len(kinds) != 0 {
					t.Errorf("people were notified of %v", kinds)
				}
			})
		})
	}
}

// A run that dies leaves an attempt. After its lease it no longer counts, without a quiet
// period.
func TestAServiceAccountsRunDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.serve(t)
		time.Sleep(time.Hour)
		b.gate(rotationtest.Nth(1, "issuer.Redeem", rotationtest.After, rotationtest.Fault{Kind: rotationtest.Crash}))
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = b.rotator().Sweep(context.Background())
		}()
		<-done
		if got := b.rotate(t); got.Outcome != rotation.Busy {
			t.Errorf("while the attempt is live: %+v", got)
		}
		time.Sleep(b.settings.Lease)
		if report := b.sweep(t); report.Outcomes[rotation.Rotated] != 1 {
			t.Errorf("%+v\n%s", report, b.Journal.String())
		}
		if err := errors.Join(b.works(t.Context()), rotationtest.CheckAtRest(b.Harness)); err != nil {
			t.Error(err)
		}
	})
}

func TestAServiceAccountAndConsents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		if _, err := b.rotator().ServiceAccount(t.Context(), acme, "42"); !errors.Is(err, rotation.ErrHasConsent) {
			t.Errorf("over a person's consent: %v", err)
		}
		_, err := b.rotator().Disconnect(t.Context(), acme)
		must(t, err)
		if got := b.serve(t); got.Outcome != rotation.Rotated || got.Epoch != 3 {
			t.Fatalf("after disconnecting: %+v\n%s", got, b.Journal.String())
		}
		if got := b.serve(t); got.Outcome != rotation.Fresh || got.Generation != 1 {
			t.Errorf("once more: %+v", got)
		}
		if _, err := b.rotator().ServiceAccount(t.Context(), acme, "43"); err == nil {
			t.Error("it moved to another company")
		}
		served, err := b.read(t.Context())
		must(t, err)
		if result, err := b.consent(t.Context(), pat, rotation.Identity{Company: "42"}); result != rotation.Connected {
			t.Fatalf("%s, %v", result, err)
		}
		b.deliver(t.Context())
		if err := b.works(t.Context()); err != nil || b.record(t).ServiceAccount {
			t.Errorf("a consent in its place: %v", err)
		}
		if b.Issuer.Accepts(t.Context(), served.AccessToken) {
			t.Error("the service account's token is still valid")
		}
		_, err = b.rotator().ServiceAccount(t.Context(), token.Connection{Environment: "sandbox", Name: "nobody"}, "42")
		if !errors.Is(err, rotation.ErrNotRegistered) {
			t.Errorf("unregistered: %v", err)
		}
	})
}

func TestAServiceAccountWithRefusedCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.serve(t)
		other := app
		other.ClientID, other.ClientSecret = "client-2", token.NewSecret("canary-of-the-other-app")
		b.Applications.Set(other)
		time.Sleep(time.Hour)
		if report := b.sweep(t); report.Outcomes[rotation.ConfigError] != 1 {
			t.Errorf("%+v", report)
		}
		b.Issuer.Register(other) // nobody consented to a client id, so another one does as well
		time.Sleep(time.Hour)
		if report := b.sweep(t); report.Outcomes[rotation.Rotated] != 1 {
			t.Errorf("%+v", report)
		}
	})
}

// grantless has pairs for people and nothing for apps themselves.
type grantless struct {
	rotation.Issuer
	answer rotation.Class
}

func (g grantless) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if grant.ClientCredentials {
		return rotation.Answer{Class: g.answer, Detail: "HTTP 401 unauthorized_client"}
	}
	return g.Issuer.Redeem(ctx, app, grant)
}

// If an app has no service accounts, the connections of people go on. The person who created
// one by mistake is notified, and no other connection is delayed.
func TestAnAppWithoutServiceAccountsGoesOn(t *testing.T) {
	for _, answer := range []rotation.Class{rotation.GrantFault, rotation.RequestFault, rotation.Refused} {
		t.Run(string(answer), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.settings.Concurrency = 1
				people := len(b.connectIn(t, "sandbox", 5))
				r := b.rotatorWith(grantless{b.Issuer, answer})
				mistakes := []string{"one", "two", "three", "four"}
				for _, name := range mistakes {
					c := token.Connection{Environment: "sandbox", Name: name}
					_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, c)
					must(t, err)
					report, err := r.ServiceAccount(t.Context(), c, "42")
					must(t, err)
					if got := report.Connections[0]; got.Outcome != rotation.ConfigError || !strings.Contains(got.Detail,
						"tokenturn connection disconnect sandbox/"+name) {
						t.Errorf("%+v", got)
					}
				}
				for range 3 {
					time.Sleep(time.Hour)
					report, err := r.Sweep(t.Context())
					must(t, err)
					if report.Outcomes[rotation.Rotated] != people || report.Outcomes[rotation.ConfigError] != len(mistakes) {
						t.Errorf("of %d connections of people and %d mistakes: %v", people, len(mistakes), report.Outcomes)
					}
				}
				if kinds := b.notices(); len(kinds) != len(mistakes) {
					t.Errorf("notices %v, want one for each mistake", kinds)
				}
			})
		})
	}
}

// A service account replaces a consent, and a consent replaces a service account. Readers
// have a live token of one of them at every moment.
func TestAServiceAccountReplacesAConsentAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(20 * time.Minute)
		result, err := b.consents().ServiceAccount(t.Context(), acme, "42")
		if result != rotation.Connected || err != nil {
			t.Fatalf("%s, %v", result, err)
		}
		shown, err := b.read(t.Context())
		if err != nil || !b.Issuer.Accepts(t.Context(), shown.AccessToken) {
			t.Errorf("before the new token is published, readers have none: %v", err)
		}
		if live := b.livePairs(t); live != 1 {
			t.Errorf("%d pairs of people are live before that, want one", live)
		}
		b.deliver(t.Context())
		doc, err := b.read(t.Context())
		if rec := b.record(t); err != nil || !rec.ServiceAccount || doc.Source != "client_credentials" ||
			doc.CompanyID != "42" {
			t.Errorf("%+v\n%+v, %v", rec, doc, err)
		}
		if err := errors.Join(b.works(t.Context()), rotationtest.CheckAtRest(b.Harness)); err != nil {
			t.Error(err)
		}
		if live := b.livePairs(t); live != 0 {
			t.Errorf("%d pairs of people are live after that", live)
		}
		for range 3 {
			time.Sleep(time.Hour)
			b.sweep(t)
		}
		if result, err := b.consent(t.Context(), pat, rotation.Identity{Company: "42"}); result != rotation.Connected {
			t.Fatalf("%s, %v", result, err)
		}
		b.deliver(t.Context())
		if rec := b.record(t); rec.ServiceAccount || rec.Pin.Login != pat.Login {
			t.Errorf("%+v", rec)
		}
		if err := errors.Join(b.works(t.Context()), rotationtest.CheckAtRest(b.Harness)); err != nil {
			t.Error(err)
		}
		if kinds := b.notices(); len(kinds) != 0 {
			t.Errorf("people were notified of %v", kinds)
		}
	})
}

// elsewhere is a server on which the app's service account has no access to the company.
type elsewhere struct{ *rotationtest.Issuer }

func (e elsewhere) Identify(ctx context.Context, app rotation.Application, access token.Secret,
	company string) (rotation.Identity, error) {
	id, err := e.Issuer.Identify(ctx, app, access, company)
	if id.ResourceOwner == "" {
		id.Company = ""
	}
	return id, err
}

// If the service account cannot do what the person's token can, nothing changes.
func TestAServiceAccountWithoutAccessReplacesNothing(t *testing.T) {
	for name, issuer := range map[string]func(*harness) rotation.Issuer{
		"no company":          func(b *harness) rotation.Issuer { return elsewhere{b.Issuer} },
		"no service accounts": func(b *harness) rotation.Issuer { return grantless{b.Issuer, rotation.GrantFault} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				before := b.record(t)
				s := b.consentsBut(func(cfg *rotation.ConsentsConfig) { cfg.Issuer = issuer(b) })
				if result, err := s.ServiceAccount(t.Context(), acme, "42"); err == nil || result == rotation.Connected {
					t.Errorf("%s, %v", result, err)
				}
				time.Sleep(time.Hour)
				b.sweep(t)
				after := b.record(t)
				if after.ServiceAccount || after.Epoch != before.Epoch || after.Generation != before.Generation+1 {
					t.Errorf("%+v", after)
				}
				if err := errors.Join(b.works(t.Context()), rotationtest.CheckAtRest(b.Harness)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Readers have a live token while the new one cannot be published, whether a service account
// or a new consent replaced theirs.
func TestTheFormerPairLivesUntilTheNewOneIsPublished(t *testing.T) {
	for name, replace := range map[string]func(*testing.T, *harness) (rotation.ConsentResult, error){
		"service account": func(t *testing.T, b *harness) (rotation.ConsentResult, error) {
			return b.consents().ServiceAccount(t.Context(), acme, "42")
		},
		"consent": func(t *testing.T, b *harness) (rotation.ConsentResult, error) {
			return b.consent(t.Context(), pat, rotation.Identity{Company: "42"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				time.Sleep(20 * time.Minute)
				b.gate(rotationtest.Always("secrets.Put", before, fail))
				if result, err := replace(t, b); result != rotation.Connected {
					t.Fatalf("%s, %v", result, err)
				}
				b.deliver(t.Context())
				b.sweep(t)
				shown, err := b.read(t.Context())
				if err != nil || !b.Issuer.Accepts(t.Context(), shown.AccessToken) {
					t.Errorf("readers have no live token: %v\n%s", err, b.Journal.String())
				}
				b.gate(nil)
				time.Sleep(10 * time.Minute)
				b.deliver(t.Context())
				b.sweep(t)
				if err := errors.Join(b.works(t.Context()), rotationtest.CheckAtRest(b.Harness)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// away is a server with an API that nobody reaches for some time.
type away struct {
	*rotationtest.Issuer
	until time.Time
}

func (a *away) Identify(ctx context.Context, app rotation.Application, access token.Secret,
	company string) (rotation.Identity, error) {
	if time.Now().Before(a.until) {
		return rotation.Identity{}, errors.New("out of reach")
	}
	return a.Issuer.Identify(ctx, app, access, company)
}

// A service account's token that cannot be checked waits. If it expires first, the person's
// tokens stay in use, and people learn what to do.
func TestAServiceAccountThatCannotBeChecked(t *testing.T) {
	for wait, connected := range map[time.Duration]bool{30 * time.Minute: true, 100 * time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			b.connect(t)
			time.Sleep(20 * time.Minute)
			b.issuer = &away{b.Issuer, time.Now().Add(wait)}
			s := b.consentsBut(func(cfg *rotation.ConsentsConfig) { cfg.Issuer = b.issuer })
			if result, err := s.ServiceAccount(t.Context(), acme, "42"); result != rotation.Verifying {
				t.Fatalf("%s, %v", result, err)
			}
			for range 14 {
				time.Sleep(10 * time.Minute)
				b.deliver(t.Context())
				b.sweep(t)
			}
			if rec := b.record(t); rec.ServiceAccount != connected {
				t.Errorf("after %v: %+v", wait, rec)
			}
			const remedy = "run `tokenturn connection convert sandbox/acme --to service-account` again"
			said := ""
			for _, n := range b.Notifier.Notices() {
				said += n.Summary
			}
			if strings.Contains(said, remedy) == connected {
				t.Errorf("after %v, people read %q", wait, said)
			}
			if !connected {
				result, err := b.consents().ServiceAccount(t.Context(), acme, "42")
				if result != rotation.Connected || err != nil {
					t.Errorf("the remedy: %s, %v", result, err)
				}
				b.deliver(t.Context())
			}
			if err := errors.Join(b.works(t.Context()), rotationtest.CheckAtRest(b.Harness)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Only a person's connection is replaced, once, and in its own company.
func TestWhatAServiceAccountDoesNotReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		refused := func(company, why string) {
			t.Helper()
			before := b.record(t)
			result, err := b.consents().ServiceAccount(t.Context(), acme, company)
			if result == rotation.Connected || err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%s, %v, want %q", result, err, why)
			}
			if after := b.record(t); after.Epoch != before.Epoch || after.Status != before.Status {
				t.Errorf("%+v", after)
			}
		}
		refused("99", "belongs to company 42")
		_, err := b.consents().ServiceAccount(t.Context(), acme, "42")
		must(t, err)
		refused("42", "a service account already")
		b.deliver(t.Context())
		_, err = b.rotator().Disconnect(t.Context(), acme)
		must(t, err)
		refused("42", "not connected")
	})
}
