package rotation_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestWhatAnAnswerMeans(t *testing.T) {
	type fault struct {
		when  rotationtest.Moment
		fault rotationtest.Fault
	}
	before := func(k rotationtest.Kind) fault { return fault{rotationtest.Before, rotationtest.Fault{Kind: k}} }
	tests := []struct {
		name    string
		fault   fault
		outcome rotation.Outcome
		later   time.Duration // after which a sweep is to find it in order again
		status  rotation.Status
		notices []string
	}{
		{"429", before(rotationtest.Throttle), rotation.Deferred, time.Minute, rotation.Active, nil},
		{"connection refused", before(rotationtest.Unsent), rotation.Deferred, time.Minute, rotation.Active, nil},
		{"invalid_client", before(rotationtest.Deny), rotation.ConfigError, 2 * time.Minute, rotation.Active,
			[]string{rotation.NoticeConfigError}},
		{"503", before(rotationtest.Fail), rotation.Unknown, 4 * time.Minute, rotation.Active,
			[]string{rotation.NoticeUnknown}},
		{"the answer is lost", fault{rotationtest.After, rotationtest.Fault{Kind: rotationtest.Fail}}, rotation.Unknown,
			4 * time.Minute,
			rotation.NeedsConsent, []string{rotation.NoticeUnknown, rotation.NoticeNeedsConsent}},
		{"half the answer", fault{rotationtest.After, rotationtest.Fault{Kind: rotationtest.Cut}}, rotation.Unknown,
			4 * time.Minute,
			rotation.NeedsConsent, []string{rotation.NoticeRejected, rotation.NoticeNeedsConsent}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				b.gate(rotationtest.Nth(1, "issuer.Redeem", test.fault.when, test.fault.fault))
				time.Sleep(time.Hour)
				if report := b.sweep(t); report.Outcomes[test.outcome] != 1 {
					t.Errorf("outcomes %v, want %s", report.Outcomes, test.outcome)
				}
				if got := b.sweep(t); got.Due != 0 {
					t.Errorf("it is due again at once: %+v", got)
				}
				time.Sleep(test.later)
				b.sweep(t)
				if rec := b.record(t); rec.Status != test.status {
					t.Errorf("status %s, want %s\n%s", rec.Status, test.status, b.Journal.String())
				}
				if test.status == rotation.Active {
					if err := b.works(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if kinds := b.notices(); !slices.Equal(kinds, test.notices) {
					t.Errorf("notices %v, want %v", kinds, test.notices)
				}
			})
		})
	}
}

func TestOverlapHealsALostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{Overlap: true})
		b.connect(t)
		b.gate(rotationtest.Nth(1, "issuer.Redeem", rotationtest.After, rotationtest.Fault{Kind: rotationtest.Fail}))
		time.Sleep(time.Hour)
		b.sweep(t)
		time.Sleep(4 * time.Minute)
		b.deliver(t.Context()) // the follow-up sweep that the attempt had asked for
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal.String())
		}
	})
}

func TestAnAnswerThatTheLedgerDoesNotTakeIsKeptInTheSecretStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		answered := false
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			answered = answered || at.Call == "issuer.Redeem" && at.When == rotationtest.After
			if answered && strings.HasPrefix(at.Call, "ledger.") {
				return rotationtest.Fault{Kind: rotationtest.Fail}
			}
			return rotationtest.Fault{}
		})
		if report := b.sweep(t); report.Outcomes[rotation.Failed] != 1 {
			t.Fatalf("outcomes %v although the ledger is gone", report.Outcomes)
		}
		b.gate(nil)
		time.Sleep(time.Hour)
		if report := b.sweep(t); report.Outcomes[rotation.Recovered] != 1 {
			t.Errorf("outcomes %v, want one recovered\n%s", report.Outcomes, b.Journal.String())
		}
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal.String())
		}
	})
}

func TestANewSecretOfTheAppIsTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		changed := app
		changed.ClientSecret = token.NewSecret("canary-new-client-secret")
		b.Issuer.Register(changed)
		replaced := false
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.When == rotationtest.After && at.Call == "issuer.Redeem" && !replaced {
				replaced = true
				b.Applications.Set(changed) // the operator's `app set`, between two presentations
			}
			return rotationtest.Fault{}
		})
		if report := b.sweep(t); report.Outcomes[rotation.Rotated] != 1 {
			t.Errorf("outcomes %v, want rotated with the new secret", report.Outcomes)
		}
	})
}

func TestRefusedCredentialsOpenTheCircuitBreakerForTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.settings.Concurrency = 1
		names := connectMany(t, b, 5)
		changed := app
		changed.ClientSecret = token.NewSecret("canary-reset")
		b.Issuer.Register(changed)
		time.Sleep(time.Hour)
		report := b.sweep(t)
		if report.Outcomes[rotation.ConfigError] != len(names) {
			t.Errorf("outcomes %v, want all config_error", report.Outcomes)
		}
		if n := len(b.presentations()); n != 1 {
			t.Errorf("%d tokens were presented with refused credentials, want 1", n)
		}
		b.Applications.Set(changed) // healed without a person touching the connections
		time.Sleep(time.Hour)
		if report := b.sweep(t); report.Outcomes[rotation.Rotated] != len(names) {
			t.Errorf("after the repair: %v", report.Outcomes)
		}
	})
}

func TestAServerThatKeepsTheRefreshTokenIsNeverTakenForAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{NoRotation: true})
		b.connect(t)
		time.Sleep(time.Hour)
		b.sweep(t)
		rec := b.record(t)
		if rec.Status != rotation.Active || rec.Generation != 0 || rec.Attempt == nil {
			t.Errorf("an answer without a refresh token led to %+v", rec)
		}
		if kinds := b.notices(); !slices.Contains(kinds, rotation.NoticeRejected) {
			t.Errorf("nobody was notified: %v", kinds)
		}
	})
}

// A server may also send the same refresh token again (RFC 6749 section 6).
func TestAServerThatSendsTheSameRefreshTokenIsTakenAtItsWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{NoRotation: true})
		b.connect(t)
		b.issuer = repeating{b.Issuer}
		b.gate(rotationtest.Nth(3, "issuer.Redeem", after, fail))
		for hour := range 5 {
			time.Sleep(time.Hour)
			b.sweep(t)
			if lost := hour == 2; lost != (b.record(t).Attempt != nil) {
				t.Errorf("hour %d: attempt %+v", hour, b.record(t).Attempt)
			}
		}
		if err := b.works(t.Context()); err != nil {
			t.Error(err)
		}
		if kinds, rec := b.notices(), b.record(t); !slices.Equal(kinds, []string{rotation.NoticeUnknown}) ||
			rec.Generation != 4 {
			t.Errorf("people were notified of %v, generation %d", kinds, rec.Generation)
		}
	})
}

// repeating returns the refresh token that was presented.
type repeating struct{ *rotationtest.Issuer }

func (r repeating) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := r.Issuer.Redeem(ctx, app, grant)
	if answer.Class == rotation.Captured && !grant.RefreshToken.IsZero() {
		answer.Body = token.NewSecret(strings.Replace(answer.Body.Reveal(), "{",
			`{"refresh_token":"`+grant.RefreshToken.Reveal()+`",`, 1))
	}
	return answer
}

func TestQuarantineWaitsForAPerson(t *testing.T) {
	for _, release := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{Overlap: true})
			b.connect(t)
			time.Sleep(time.Hour)
			two := withSeveralTokens(b.Issuer)
			r := b.rotatorWith(two)
			report, err := r.Sweep(t.Context())
			must(t, err)
			if report.Outcomes[rotation.InQuarantine] != 1 {
				t.Fatalf("%+v", report)
			}
			time.Sleep(3 * time.Hour)
			presented := len(b.presentations())
			if got := b.rotate(t); got.Outcome != rotation.InQuarantine || len(b.presentations()) != presented ||
				!b.record(t).Quarantined {
				t.Fatalf("a quarantined connection answered %s", got.Outcome)
			}
			if release {
				if _, err := b.rotator().Release(t.Context(), acme, token.NewSecret("not in the answer")); err == nil {
					t.Error("a refresh token from nowhere was accepted")
				}
				_, err = b.rotator().Release(t.Context(), acme, two.right)
			} else {
				_, err = b.rotator().Discard(t.Context(), acme)
			}
			must(t, err)
			time.Sleep(time.Hour)
			b.sweep(t)
			if err := b.works(t.Context()); err != nil {
				t.Errorf("release %t: %v\n%s", release, err, b.Journal.String())
			}
			if b.record(t).Quarantined {
				t.Errorf("release %t: still quarantined", release)
			}
		})
	}
}
