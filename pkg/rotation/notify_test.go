package rotation_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// connectIn connects n connections of an environment, which gets app
// credentials of its own.
func (b *harness) connectIn(t *testing.T, environment string, n int) []token.Connection {
	t.Helper()
	own := app
	own.Environment = environment
	b.Applications.Set(own)
	var names []token.Connection
	for i := range n {
		c := token.Connection{Environment: environment, Name: fmt.Sprintf("c-%02d", i)}
		rec, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, c)
		must(t, err)
		exchange, err := b.consents().Prepare(t.Context(), c, rec.Epoch)
		must(t, err)
		result, err := exchange.Redeem(t.Context(), rotation.Consent{Code: b.Issuer.Authorize(pat, redirectURI, ""),
			RedirectURI: redirectURI})
		if result != rotation.Connected {
			t.Fatalf("consent of %s: %s, %v", c, result, err)
		}
		names = append(names, c)
	}
	b.deliver(t.Context())
	return names
}

// withdrawAll ends the consents of connections at the server.
func (b *harness) withdrawAll(t *testing.T, connections []token.Connection) {
	t.Helper()
	for _, c := range connections {
		version, err := b.SecretStore.Current(t.Context(), c)
		must(t, err)
		doc, err := token.ParseDocument(version.Value)
		must(t, err)
		b.Issuer.Withdraw(t.Context(), doc.AccessToken)
	}
}

// The monthly sandbox is overwritten, which ends all consents there: that is one
// notice, not fifty, however many sweeps and follow-ups meet it.
func TestAWipeIsOneNotice(t *testing.T) {
	for _, lifetime := range []time.Duration{5400 * time.Second, 900 * time.Second} {
		t.Run(lifetime.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{Lifetime: lifetime})
				monthly := b.connectIn(t, "monthly-sandbox", 50)
				b.connectIn(t, "production", 3)
				b.live(t, time.Now().Add(2*hour), nil)
				b.withdrawAll(t, monthly)
				b.live(t, time.Now().Add(day), nil)
				notices := b.Notifier.Notices()
				if len(notices) != 1 || notices[0].Kind != rotation.NoticeNeedsConsent || !notices[0].Connection.IsZero() ||
					notices[0].Environment != "monthly-sandbox" ||
					!strings.Contains(notices[0].Summary, "monthly-sandbox/c-") || !strings.Contains(notices[0].Summary,
					"first working day of each month") {
					t.Errorf("people were notified of %+v", notices)
				}
				for _, c := range monthly {
					if rec, _, _ := b.Ledger.Load(t.Context(), c); rec.Status != rotation.NeedsConsent || rec.NoticePending {
						t.Errorf("%s is %s, notice pending %t", c, rec.Status, rec.NoticePending)
					}
				}
			})
		})
	}
}

// One or two that need a consent are a notice each, which names the person who must
// consent again and has a link. It is sent once, however many sweeps follow.
func TestANeededConsentIsANotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		two := b.connectIn(t, "production", 2)
		b.withdrawAll(t, two)
		time.Sleep(hour)
		invitations := linker{"https://connect.example.com/connect/canary-link"}
		sweep := func() {
			r, err := rotation.NewRotator(rotation.Config{Ledger: b.Ledger, SecretStore: b.SecretStore, Sealer: b.Sealer,
				Applications: b.Applications, Issuer: b.Issuer,
				Notifier: b.Notifier, NoticeClaims: b.NoticeClaims, Invitations: invitations, Log: b.logger(),
				Settings: b.settings})
			must(t, err)
			_, err = r.Sweep(t.Context())
			must(t, err)
		}
		for range 5 {
			sweep()
			time.Sleep(hour)
		}
		notices := b.Notifier.Notices()
		if len(notices) != 2 {
			t.Fatalf("people were notified of %+v", notices)
		}
		for i, n := range notices {
			if n.Connection != two[i] || n.Link.Reveal() != invitations.link || !strings.Contains(n.Summary,
				"pat@example.com (Procore user 7) must allow access again") ||
				!strings.HasSuffix(n.Summary, ". tokenturn also tries the old token again for a day.") {
				t.Errorf("notice %+v", n)
			}
		}
		if strings.Contains(b.Log.String(), "canary-link") {
			t.Error("the link is in the log")
		}
	})
}

// If the notice of a loss cannot be delivered, the next scheduled sweep sends it. No sweep
// is requested meanwhile, because each would request another one.
func TestANoticeOfALossIsSentUntilItIsDelivered(t *testing.T) {
	for name, n := range map[string]int{"one": 1, "in numbers": 5} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				lost := b.connectIn(t, "production", n)
				b.withdrawAll(t, lost)
				time.Sleep(hour)
				b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
					if at.Call == "notifier.Notify" && at.When == rotationtest.Before {
						return rotationtest.Fault{Kind: rotationtest.Fail}
					}
					return rotationtest.Fault{}
				})
				asked := 0
				for n := range 3 {
					b.sweep(t)
					if n == 0 { // the attempts asked as well
						asked = b.queued("sweep")
					} else if more := b.queued("sweep") - asked; more > n { // one for each time at which the token is tried again
						t.Errorf("%d sweeps were asked for", more)
					}
					if rec, _, _ := b.Ledger.Load(t.Context(), lost[0]); rec.Status != rotation.NeedsConsent || !rec.NoticePending {
						t.Fatalf("%s is %s, notice pending %t", lost[0], rec.Status, rec.NoticePending)
					}
					time.Sleep(20 * time.Minute) // what one claims in vain holds for an hour
				}
				b.gate(nil)
				for range 2 {
					b.sweep(t)
					time.Sleep(hour)
				}
				notices := b.Notifier.Notices()
				if len(notices) != 1 || notices[0].Kind != rotation.NoticeNeedsConsent ||
					notices[0].Connection.IsZero() != (n > 1) {
					t.Errorf("people were notified of %+v", notices)
				}
				if rec, _, _ := b.Ledger.Load(t.Context(), lost[0]); rec.NoticePending {
					t.Error("its notice is still pending")
				}
			})
		})
	}
}

// linker creates the same link for everyone.
type linker struct{ link string }

func (l linker) Renew(_ context.Context, _ rotation.Record, now time.Time) (token.Secret, time.Time, error) {
	return token.NewSecret(l.link), now.Add(72 * hour), nil
}

// If they are found one by one, the first two are a notice each, and the other 48 are one
// more.
func TestManyOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		all := b.connectIn(t, "production", 50)
		for _, c := range all {
			b.withdrawAll(t, []token.Connection{c})
			_, err := b.rotator().Rotate(t.Context(), c)
			must(t, err)
			time.Sleep(time.Minute)
		}
		notices := b.Notifier.Notices()
		if len(notices) != 3 || notices[0].Connection != all[0] || notices[1].Connection != all[1] ||
			!notices[2].Connection.IsZero() || !strings.HasPrefix(notices[2].Summary, all[2].String()+
			" needs a new consent. Others of production needed one within the last hour. ") {
			t.Errorf("people were notified of %+v", notices)
		}
		time.Sleep(2 * hour)
		last := token.Connection{Environment: "production", Name: "last"}
		rec, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, last)
		must(t, err)
		exchange, err := b.consents().Prepare(t.Context(), last, rec.Epoch)
		must(t, err)
		_, err = exchange.Redeem(t.Context(), rotation.Consent{Code: b.Issuer.Authorize(pat, redirectURI, ""),
			RedirectURI: redirectURI})
		must(t, err)
		b.deliver(t.Context())
		b.withdrawAll(t, []token.Connection{last})
		_, err = b.rotator().Rotate(t.Context(), last)
		must(t, err)
		if notices := b.Notifier.Notices(); len(notices) != 4 || notices[3].Connection != last {
			t.Errorf("hours later people were notified of %+v", notices[3:])
		}
	})
}

// A follow-up leaves its notices to a sweep, which sees other connections with the same
// cause. The sweep comes within minutes.
func TestASweepSendsTheNoticesOfFollowUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		b.withdrawAll(t, []token.Connection{acme})
		time.Sleep(hour)
		report, err := b.rotator().Do(t.Context(), rotation.Request{Op: "ensure", Connection: acme.String(),
			MinTTLSeconds: 5000})
		must(t, err)
		if report.Outcomes[rotation.ConsentNeeded] != 1 || len(b.notices()) != 0 {
			t.Fatalf("%+v, notices %v", report, b.notices())
		}
		b.live(t, time.Now().Add(5*time.Minute), nil)
		if kinds := b.notices(); !slices.Equal(kinds, []string{rotation.NoticeNeedsConsent}) {
			t.Errorf("people were notified of %v", kinds)
		}
	})
}

// Refused app credentials are one notice for all connections and runs, and
// another one when other credentials are refused.
func TestRefusedCredentialsAreOneNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connectIn(t, "sandbox", 20)
		reset := app
		reset.ClientSecret = token.NewSecret("canary-at-the-portal")
		b.Issuer.Register(reset)
		b.live(t, time.Now().Add(6*hour), nil)
		if kinds := b.notices(); !slices.Equal(kinds, []string{rotation.NoticeConfigError}) {
			t.Errorf("people were notified of %v", kinds)
		}
		mistyped := app
		mistyped.ClientSecret = token.NewSecret("canary-mistyped")
		b.Applications.Set(mistyped)
		b.live(t, time.Now().Add(2*hour), nil)
		b.Applications.Set(reset)
		b.live(t, time.Now().Add(2*hour), nil)
		if kinds := b.notices(); len(kinds) > 2 {
			t.Errorf("people were notified of %v", kinds)
		}
		records := 0
		for i := range 20 {
			rec, _, _ := b.Ledger.Load(t.Context(), token.Connection{Environment: "sandbox", Name: fmt.Sprintf("c-%02d", i)})
			if rec.Failure() == nil && rec.Status == rotation.Active {
				records++
			}
		}
		if records != 20 {
			t.Errorf("%d of 20 are in order once the right secret is set", records)
		}
	})
}

func TestANewLifetimeIsOneNoticeForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connectIn(t, "sandbox", 20)
		b.Issuer.Personality.Lifetime = 2 * hour
		b.live(t, time.Now().Add(day), nil)
		notices := b.Notifier.Notices()
		if len(notices) != 1 || notices[0].Kind != rotation.NoticeLifetimeChanged || !strings.Contains(notices[0].Summary,
			"sandbox now live 2h0m0s") {
			t.Errorf("people were notified of %+v", notices)
		}
	})
}

// hostDown makes the login host of an environment misbehave.
type hostDown struct {
	*rotationtest.Issuer
	environment string
	answer      rotation.Answer
	asked       int
}

func (h *hostDown) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if app.Environment == h.environment {
		h.asked++
		return h.answer
	}
	return h.Issuer.Redeem(ctx, app, grant)
}

// If a login host is down or asks for a wait, one connection meets it (three, if each try
// puts a token in doubt). Then the circuit breaker stays open for the run. The other
// environments go on.
func TestOneLoginHostDoesNotHoldUpOthers(t *testing.T) {
	for name, c := range map[string]struct {
		answer  rotation.Answer
		asked   int
		outcome rotation.Outcome
	}{
		"no connection": {rotation.Answer{Class: rotation.NotSent, Detail: "dial: connection refused"}, 1,
			rotation.Deferred},
		"too many requests": {rotation.Answer{Class: rotation.RateLimited, Wait: 5 * time.Minute, Detail: "HTTP 429"}, 1,
			rotation.Deferred},
		"maintenance": {rotation.Answer{Class: rotation.UnknownResult, Wait: 10 * time.Minute, Detail: "HTTP 503"}, 1,
			rotation.Unknown},
		"errors":     {rotation.Answer{Class: rotation.UnknownResult, Detail: "HTTP 500"}, 3, rotation.Unknown},
		"a firewall": {rotation.Answer{Class: rotation.OddRefusal, Detail: "HTTP 403"}, 3, rotation.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.settings.Concurrency = 1
				b.connectIn(t, "production", 10)
				b.connectIn(t, "sandbox", 10)
				time.Sleep(hour)
				down := &hostDown{Issuer: b.Issuer, environment: "production", answer: c.answer}
				report, err := b.rotatorWith(down).Sweep(t.Context())
				must(t, err)
				if down.asked != c.asked || report.Outcomes[rotation.Rotated] != 10 ||
					report.Outcomes[rotation.Deferred]+report.Outcomes[rotation.Unknown] != 10 {
					t.Errorf("asked %d times, outcomes %v", down.asked, report.Outcomes)
				}
				for _, r := range report.Connections {
					if r.Connection.Environment == "production" && (r.RetryAt.IsZero() || !r.RetryAt.After(time.Now())) {
						t.Errorf("%+v does not say when to try again", r)
					}
				}
				if n := strings.Count(b.Log.String(), "nothing is sent to the login host"); n != 1 {
					t.Errorf("it is noticed %d times in a run:\n%s", n, b.Log.String())
				}
				b.live(t, time.Now().Add(2*hour), nil) // the host is back
				for i := range 10 {
					rec, _, err := b.Ledger.Load(t.Context(), token.Connection{Environment: "production", Name: fmt.Sprintf("c-%02d",
						i)})
					if err != nil || rec.Failure() != nil || rec.Attempt != nil || time.Until(rec.Current.ExpiresAt) < 0 {
						t.Errorf("%+v, %v", rec, err)
					}
				}
			})
		})
	}
}

// Those that have asked by the time the first learns that the host is down are noticed with it.
func TestALoginHostThatSeveralFindDownIsNoticedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.settings.Concurrency = 8
		b.connectIn(t, "production", 20)
		time.Sleep(hour)
		down := &slowly{Issuer: b.Issuer, answer: rotation.Answer{Class: rotation.NotSent, Detail: "dial: i/o timeout"}}
		report, err := b.rotatorWith(down).Sweep(t.Context())
		if n := strings.Count(b.Log.String(), "nothing is sent to the login host"); err != nil || n != 1 ||
			report.Outcomes[rotation.Deferred] != 20 {
			t.Errorf("%v, %v; it is noticed %d times in a run:\n%s", report.Outcomes, err, n, b.Log.String())
		}
	})
}

// slowly gives one answer, after seconds, to one after the other.
type slowly struct {
	*rotationtest.Issuer
	answer rotation.Answer
	asked  atomic.Int64
}

func (s *slowly) Redeem(context.Context, rotation.Application, rotation.Grant) rotation.Answer {
	time.Sleep(time.Duration(s.asked.Add(1)) * time.Second)
	return s.answer
}

// If the server answers but reports that its spike limit is used up, the run waits the ten
// seconds of that limit.
func TestARemainingLimitOfNothingIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.settings.Concurrency = 1
		b.connectIn(t, "sandbox", 4)
		time.Sleep(hour)
		started := time.Now()
		report, err := b.rotatorWith(exhausted{b.Issuer}).Sweep(t.Context())
		if took := time.Since(started); err != nil || report.Outcomes[rotation.Rotated] != 4 || took < 24*time.Second ||
			took > 40*time.Second {
			t.Errorf("%v after %v, %v", report.Outcomes, took, err)
		}
	})
}

type exhausted struct{ *rotationtest.Issuer }

func (e exhausted) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := e.Issuer.Redeem(ctx, app, grant)
	answer.Wait = 10 * time.Second
	return answer
}

// If the claim of an event cannot be read, the notice is sent once more.
func TestNoticeClaimsThatCannotBeReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connectIn(t, "sandbox", 2)
		b.gate(rotationtest.Always("noticeclaims.First", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Fail}))
		b.Issuer.Personality.Lifetime = 2 * hour
		b.live(t, time.Now().Add(3*hour), nil)
		if kinds := b.notices(); !slices.Contains(kinds, rotation.NoticeLifetimeChanged) {
			t.Errorf("people were notified of %v", kinds)
		}
	})
}

// The document of another environment is not adopted, even if it is newer
// than the right one: the right one is restored, and the notice names both.
func TestADocumentOfAnotherEnvironmentIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		for range 3 {
			time.Sleep(hour)
			b.sweep(t)
		}
		theirs, err := b.SecretStore.Current(t.Context(), acme)
		must(t, err)
		production := b.connectIn(t, "production", 1)[0]
		time.Sleep(hour)
		must(t, b.SecretStore.Edit(t.Context(), production, theirs.Value))
		b.sweep(t)
		notices := b.Notifier.Notices()
		if len(notices) != 1 || notices[0].Kind != rotation.NoticeDrift || !strings.Contains(notices[0].Summary,
			"production/c-00") ||
			!strings.Contains(notices[0].Summary, "document of sandbox/acme") {
			t.Errorf("people were notified of %+v", notices)
		}
		version, err := b.SecretStore.Current(t.Context(), production)
		must(t, err)
		if doc, err := token.ParseDocument(version.Value); err != nil || doc.Connection != production || doc.Generation != 1 {
			t.Errorf("%+v, %v", doc, err)
		}
	})
}

// Each kind of notice has a title of its own, which fits the subject of a mail.
func TestTitlesOfNotices(t *testing.T) {
	source, err := os.ReadFile("ports.go")
	must(t, err)
	kinds := regexp.MustCompile(`\tNotice\w+ += "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(kinds) < 12 {
		t.Fatalf("found %d kinds", len(kinds))
	}
	seen := map[string]bool{}
	for _, kind := range kinds {
		title := rotation.Notice{Kind: kind[1], Connection: acme}.Title()
		if seen[title] || !strings.HasPrefix(title, "sandbox/acme") || strings.Contains(title, "_") ||
			title == "sandbox/acme: "+strings.ReplaceAll(kind[1], "_", " ") || len(title) > 80 {
			t.Errorf("the title of %s is %q", kind[1], title)
		}
		seen[title] = true
	}
	incident := rotation.Notice{Kind: rotation.NoticeNeedsConsent, Environment: "sandbox"}
	if title := incident.Title(); title != "several connections of sandbox need a new consent" {
		t.Errorf("the title of an incident is %q", title)
	}
}
