package rotation_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// twoSecrets is the app with a wrong client secret first.
func twoSecrets(second token.Secret) rotation.Application {
	two := app
	two.ClientSecret, two.SecondSecret = token.NewSecret("canary-reset-secret"), second
	return two
}

// resetSecret makes the first client secret a wrong one.
func resetSecret(b *harness) { b.Applications.Set(twoSecrets(app.ClientSecret)) }

// The second client secret costs each run one refused request, and nobody notices.
func TestTheSecondClientSecretIsUsedOnceTheFirstIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.backlog(t, 5)
		resetSecret(b)
		before := len(b.notices())
		asked := &asking{Issuer: b.Issuer}
		b.issuer = asked
		if report := b.sweep(t); report.Outcomes[rotation.Rotated] != 5 {
			t.Errorf("outcomes %v, want five rotated", report.Outcomes)
		}
		refused := 0
		for _, used := range asked.apps {
			if used.ClientSecret != app.ClientSecret {
				refused++
			}
		}
		if most := b.settings.Concurrency; refused == 0 || refused > most {
			t.Errorf("%d requests with the first secret, want one for each of at most %d at once", refused, most)
		}
		if kinds := b.notices()[before:]; len(kinds) > 0 {
			t.Errorf("notices %v, want none", kinds)
		}
		must(t, rotationtest.CheckAtRest(b.Harness))
	})
}

func TestTwoRefusedClientSecretsAreAConfigurationError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		b.Applications.Set(twoSecrets(token.NewSecret("canary-another-wrong-one")))
		presented := len(b.presentations())
		for range 2 {
			if report := b.rotate(t); report.Outcome != rotation.ConfigError {
				t.Errorf("outcome %s", report.Outcome)
			}
		}
		asked := &asking{Issuer: b.Issuer}
		b.issuer = asked
		report, err := b.rotator().Do(t.Context(), rotation.Request{Op: "ensure", Connection: acme.String(),
			MinTTLSeconds: 3600})
		must(t, err)
		if got := report.Connections[0].Outcome; got != rotation.ConfigError || len(asked.apps) > 0 {
			t.Errorf("right after that: %s, and %d requests, want a wait", got, len(asked.apps))
		}
		if n := len(b.presentations()) - presented; n > 1 {
			t.Errorf("%d more tokens were presented", n)
		}
		if n := b.noticesOf(rotation.NoticeConfigError); n != 1 {
			t.Errorf("%d notices, want one", n)
		}
		b.Applications.Set(twoSecrets(app.ClientSecret))
		if got := b.rotate(t).Outcome; got != rotation.Rotated {
			t.Errorf("with a second secret that is right: %s", got)
		}
		b.inOrder(t)
	})
}

func TestAConsentAndARevocationUseTheSecondClientSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		resetSecret(b)
		b.connect(t)
		_, err := b.rotator().Disconnect(t.Context(), acme)
		must(t, err)
		b.sweep(t)
		if live := b.livePairs(t); live != 0 {
			t.Errorf("%d pairs are live after the disconnect", live)
		}
	})
}

// firstAnswer gives one answer in place of the server's first one.
type firstAnswer struct {
	*rotationtest.Issuer
	first  rotation.Class
	posted int
}

func (a *firstAnswer) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	a.posted++
	answer := a.Issuer.Redeem(ctx, app, grant)
	if a.posted == 1 {
		return rotation.Answer{Class: a.first, Detail: "instead"}
	}
	return answer
}

// A code is presented again only if the server has authenticated nobody, and only if there is
// time to save the answer.
func TestACodeIsPresentedAgainOnlyIfNothingIsSpent(t *testing.T) {
	for _, class := range []rotation.Class{rotation.UnknownResult, rotation.Refused, rotation.RateLimited,
		rotation.GrantFault, rotation.RequestFault, rotation.OddRefusal, rotation.NotSent} {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			resetSecret(b)
			issuer := &firstAnswer{Issuer: b.Issuer, first: class}
			b.issuer = issuer
			result, err := b.consent(t.Context(), pat, rotation.Identity{})
			if issuer.posted != 1 || result == rotation.Connected {
				t.Errorf("after %s: %d requests, %s, %v", class, issuer.posted, result, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		resetSecret(b)
		ctx, cancel := context.WithTimeout(t.Context(), b.settings.RedeemTimeout+20*time.Second)
		defer cancel()
		b.gate(rotationtest.Nth(1, "issuer.Redeem", before, rotationtest.Fault{Kind: rotationtest.Slow,
			For: 15 * time.Second}))
		if result, err := b.consent(ctx, pat, rotation.Identity{}); result != rotation.Unavailable {
			t.Errorf("without time for another request: %s, %v", result, err)
		}
	})
}
