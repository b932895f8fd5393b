package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Stories of several runs that meet at the worst moment.

func TestAPresentationWithAnOpenEndIsNotForgottenByALaterOneThatSpentNothing(t *testing.T) {
	for name, personality := range rotationtest.Personalities {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(personality)
				b.connect(t)
				time.Sleep(time.Hour)
				storesBack := time.Now().Add(5 * time.Minute)
				b.gate(func(ctx context.Context, at rotationtest.Passage) rotationtest.Fault {
					switch {
					case at.When != rotationtest.Before:
					case at.Actor == "saver" && (at.Call == "ledger.SaveMint" || at.Call == "vault.Put" && time.Now().Before(storesBack)):
						return rotationtest.Fault{Kind: rotationtest.Fail}
					case at.Actor == "limited" && at.Call == "issuer.Redeem":
						return rotationtest.Fault{Kind: rotationtest.Throttle}
					}
					return rotationtest.Fault{}
				})
				done := make(chan struct{})
				go func() {
					defer close(done)
					ctx, cancel := context.WithTimeout(rotationtest.WithActor(t.Context(), "saver"), 15*time.Minute)
					defer cancel()
					_, _ = b.rotator().Sweep(ctx)
				}()
				time.Sleep(210 * time.Second)
				_, err := b.rotator().Sweep(rotationtest.WithActor(t.Context(), "limited"))
				must(t, err)
				<-done
				b.gate(nil)
				if err := b.rest(t.Context()); err != nil {
					t.Error(err)
				}
				if rec := b.record(t); rec.Status != rotation.Active && !personality.NoRotation {
					t.Errorf("status %s\n%s", rec.Status, b.Journal)
				}
			})
		})
	}
}

// otherKeys is a process whose setting for the keys is wrong.
type otherKeys struct{ rotation.Sealer }

func (otherKeys) Unwrap(context.Context, []byte) ([]byte, error) {
	return nil, fmt.Errorf("another encryption context: %w", rotation.ErrUnsealable)
}

func TestAMisconfiguredProcessDoesNoHarm(t *testing.T) {
	for _, stack := range []string{"bench", "other"} { // wrong keys alone, and a wrong stack id with them
		synctest.Test(t, func(t *testing.T) {
			b := newBench(rotationtest.Personality{})
			b.connect(t)
			time.Sleep(time.Hour)
			b.crashAfter(t, 1, "ledger.SaveMint")
			r, err := rotation.NewRotator(rotation.Config{Ledger: b.Ledger, Vault: b.Vault, Sealer: otherKeys{b.Sealer}, Applications: b.Applications,
				Issuer: b.Issuer, Notifier: b.Notifier, Settings: rotation.DefaultSettings(stack)})
			must(t, err)
			report, err := r.Rotate(t.Context(), acme)
			must(t, err)
			if report.Outcomes[rotation.ConfigError] != 1 {
				t.Errorf("stack %s: %+v", stack, report)
			}
			time.Sleep(time.Hour)
			if report := b.sweep(t); report.Outcomes[rotation.Recovered] != 1 {
				t.Errorf("stack %s: with the right settings again: %+v", stack, report)
			}
			if err := b.works(t.Context()); err != nil {
				t.Errorf("stack %s: %v\n%s", stack, err, b.Journal)
			}
		})
	}
}

// crashAfter lets a sweep run until it has made the nth call.
func (b *bench) crashAfter(t *testing.T, n int, call string) {
	t.Helper()
	b.gate(rotationtest.Nth(n, call, rotationtest.After, rotationtest.Fault{Kind: rotationtest.Crash}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = b.rotator().Sweep(t.Context())
	}()
	<-done
	b.gate(nil)
}

func TestAConsentOvertakenByADisconnectIsRevoked(t *testing.T) {
	for _, queue := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(rotationtest.Personality{Lifetime: 100 * time.Hour})
			b.connect(t)
			exchange, err := b.consents().Prepare(t.Context(), acme, 1)
			must(t, err)
			_, err = b.rotator().Disconnect(t.Context(), acme)
			must(t, err)
			code := b.Issuer.Authorize(pat, redirectURI, "")
			if result, _ := exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI}); result != rotation.Superseded {
				t.Errorf("the consent ended %s", result)
			}
			if queue {
				b.deliver(t.Context())
			}
			b.sweep(t)
			if live := b.livePairs(t); live != 0 {
				t.Errorf("%d pairs are alive\n%s", live, b.Journal)
			}
		})
	}
}

func TestAFirstConsentIsFinishedHoweverSlowItsCallbackWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		_, err := rotation.Register(t.Context(), b.Ledger, b.Vault, "bench", acme)
		must(t, err)
		exchange, err := b.consents().Prepare(t.Context(), acme, 0)
		must(t, err)
		for range 4 { // sweeps that find nothing to do yet
			time.Sleep(time.Minute)
			b.sweep(t)
		}
		b.gate(rotationtest.Always("issuer.Identify", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Fail}))
		code := b.Issuer.Authorize(pat, redirectURI, "")
		if result, _ := exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI}); result != rotation.Verifying {
			t.Fatalf("the consent ended %s", result)
		}
		b.gate(nil)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal)
		}
	})
}

func TestAShortStoreFaultIsOverInMinutesNotAtTheNextSweep(t *testing.T) {
	for _, call := range []string{"vault.Current", "sealer.DataKey", "vault.Put", "vault.Promote", "ledger.SaveMint"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(rotationtest.Personality{})
				b.connect(t)
				time.Sleep(time.Hour)
				b.gate(rotationtest.Always(call, rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Fail}))
				b.sweep(t)
				for range 5 {
					time.Sleep(time.Minute)
					b.deliver(t.Context())
				}
				b.gate(nil)
				for range 10 {
					time.Sleep(time.Minute)
					b.deliver(t.Context())
				}
				if err := b.works(t.Context()); err != nil || b.record(t).Generation == 0 {
					t.Errorf("15 minutes later: generation %d, %v\n%s", b.record(t).Generation, err, b.Journal)
				}
			})
		})
	}
}

func TestAWaitOfOneConsentDoesNotUndoTheWaitOfTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		b.Issuer.Wait = 15 * time.Minute
		unidentified := rotationtest.Always("issuer.Identify", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Fail})
		b.gate(unidentified)
		if result, _ := b.consent(t.Context(), pat, rotation.Identity{}); result != rotation.Verifying {
			t.Fatalf("the consent ended %s", result)
		}
		b.gate(rotationtest.Gates(unidentified, rotationtest.Always("issuer.Redeem", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Throttle})))
		current := b.record(t).Current.Fingerprint
		for range 6 {
			b.rotate(t)
			time.Sleep(time.Minute)
		}
		if n := b.presentations()[current]; n != 1 {
			t.Errorf("asked to wait 15 minutes, the token was presented %d times in 6", n)
		}
	})
}

func TestAPairIsRevokedEvenIfTheAPIDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{Lifetime: 1000 * time.Hour})
		b.connect(t)
		r := b.rotatorWith(halfIdentified{b.Issuer})
		_, err := r.Disconnect(t.Context(), acme)
		must(t, err)
		if live := b.livePairs(t); live != 0 {
			t.Errorf("%d pairs are alive", live)
		}
	})
}

// halfIdentified answers token info, but not the API's own question.
type halfIdentified struct{ *rotationtest.Issuer }

func (i halfIdentified) Identify(ctx context.Context, app rotation.Application, access token.Secret, company string) (rotation.Identity, error) {
	id, err := i.Issuer.Identify(ctx, app, access, company)
	return rotation.Identity{ClientID: id.ClientID, ResourceOwner: id.ResourceOwner}, errors.Join(err, errors.New("HTTP 503"))
}

// A server may answer the revocation with success and do nothing. It is asked again until
// the pair is dead or nothing can show it any more.
func TestRevokedIsSaidOfADeadPairOnly(t *testing.T) {
	for name, test := range map[string]struct {
		listensAfter time.Duration
		want         string
	}{
		"later": {time.Hour, "revoked"},
		"never": {1000 * time.Hour, "revocation asked for; the access token had expired, and some servers then do nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(rotationtest.Personality{Lifetime: 8 * time.Hour})
				b.connect(t)
				r := b.rotatorWith(deaf{b.Issuer, time.Now().Add(test.listensAfter)})
				report, err := r.Disconnect(t.Context(), acme)
				must(t, err)
				if detail := report.Connections[0].Detail; !strings.Contains(detail, "accepts the access token all the same") {
					t.Errorf("detail %q", detail)
				}
				if got := b.revocation(t); got != "" {
					t.Errorf("history says %q of a pair that lives", got)
				}
				for range 10 {
					time.Sleep(time.Hour)
					_, err := r.Sweep(t.Context())
					must(t, err)
				}
				if got := b.revocation(t); got != test.want {
					t.Errorf("history says %q", got)
				}
			})
		})
	}
}

// deaf answers revocations with success and does nothing until it listens.
type deaf struct {
	rotation.Issuer
	until time.Time
}

func (d deaf) Revoke(ctx context.Context, app rotation.Application, t token.Secret) error {
	if time.Now().Before(d.until) {
		return nil
	}
	return d.Issuer.Revoke(ctx, app, t)
}

// revocation is what the history says of the last revocation.
func (b *bench) revocation(t *testing.T) string {
	t.Helper()
	events, err := b.Ledger.History(t.Context(), acme, 10)
	must(t, err)
	for _, e := range events {
		if e.Kind == "revoked" {
			return e.Detail
		}
	}
	return ""
}

func TestAnAncestorOfAReleasedPairIsNotRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{KillFamily: true})
		b.connect(t)
		time.Sleep(time.Hour)
		two := contradicting(b.Issuer)
		_, err := b.rotatorWith(two).Sweep(t.Context())
		must(t, err)
		seen := &revocations{Issuer: b.Issuer}
		_, err = b.rotatorWith(seen).Release(t.Context(), acme, two.right)
		must(t, err)
		if len(seen.revoked) != 0 {
			t.Errorf("revoked %v", seen.revoked)
		}
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal)
		}
	})
}

// revocations notes what is revoked.
type revocations struct {
	rotation.Issuer
	revoked []token.Fingerprint
}

func (r *revocations) Revoke(ctx context.Context, app rotation.Application, t token.Secret) error {
	r.revoked = append(r.revoked, t.Fingerprint())
	return r.Issuer.Revoke(ctx, app, t)
}

func TestRunsThatNeverHaveTimeDoNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		b.followUpsWithin(t, 30*time.Second, 1)
		start, runs := time.Now(), 0
		for time.Since(start) < time.Hour {
			time.Sleep(time.Second)
			runs += b.followUpsWithin(t, 30*time.Second, 0)
		}
		if runs > 60 {
			t.Errorf("%d runs in an hour", runs)
		}
	})
}

// followUpsWithin carries out what is due, and so many sweeps besides, each in
// a process that has that much time, and returns how many there were.
func (b *bench) followUpsWithin(t *testing.T, timeout time.Duration, sweeps int) int {
	t.Helper()
	requests := append(b.FollowUps.Take(), slices.Repeat([]rotation.Request{{Op: "sweep"}}, sweeps)...)
	for _, request := range requests {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		_, err := b.rotator().Do(ctx, request)
		cancel()
		must(t, err)
	}
	return len(requests)
}

func TestARefusedTokenIsNotPresentedAgainBecauseTheVaultCouldNotBeSearched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		doc, err := b.read(t.Context())
		must(t, err)
		b.Issuer.Withdraw(t.Context(), doc.AccessToken)
		current := b.record(t).Current.Fingerprint
		b.gate(rotationtest.Always("vault.Versions", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Fail}))
		b.sweep(t)
		if rec := b.record(t); rec.Status != rotation.Active {
			t.Errorf("status %s before everything was searched", rec.Status)
		}
		b.gate(nil)
		for range 3 {
			time.Sleep(10 * time.Minute)
			b.sweep(t)
		}
		if n, rec := b.presentations()[current], b.record(t); n != 1 || rec.Status != rotation.NeedsConsent {
			t.Errorf("presented %d times, status %s", n, rec.Status)
		}
	})
}

func TestAContradictoryConsentAsksForANewInvitation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		_, err := rotation.Register(t.Context(), b.Ledger, b.Vault, "bench", acme)
		must(t, err)
		consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: b.Ledger, Sealer: b.Sealer, Applications: b.Applications,
			Issuer: contradicting(b.Issuer), Notifier: b.Notifier, Settings: b.settings})
		must(t, err)
		exchange, err := consents.Prepare(t.Context(), acme, 0)
		must(t, err)
		code := b.Issuer.Authorize(pat, redirectURI, "")
		if result, _ := exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI}); result != rotation.Lost {
			t.Errorf("the consent ended %s", result)
		}
		if n := b.Notifier.Notices(); len(n) != 1 || n[0].Kind != rotation.NoticeQuarantined ||
			n[0].Summary == "" || !slices.Equal(b.notices(), []string{rotation.NoticeQuarantined}) {
			t.Errorf("notices %+v", n)
		}
		if result, err := b.consent(t.Context(), pat, rotation.Identity{}); result != rotation.Connected {
			t.Errorf("the new invitation ended %s, %v", result, err)
		}
		b.deliver(t.Context())
		b.sweep(t)
		if err := b.works(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAConsentOfNobodyKnowsWhomIsRejectedAndRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		_, err := rotation.Register(t.Context(), b.Ledger, b.Vault, "bench", acme)
		must(t, err)
		consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: b.Ledger, Sealer: b.Sealer, Applications: b.Applications,
			Issuer: accessless{b.Issuer}, Notifier: b.Notifier, Settings: b.settings})
		must(t, err)
		exchange, err := consents.Prepare(t.Context(), acme, 0)
		must(t, err)
		code := b.Issuer.Authorize(pat, redirectURI, "")
		result, _ := exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI, Expect: rotation.Identity{Login: pat.Login}})
		if rec := b.record(t); result != rotation.WrongIdentity || rec.Status != rotation.Pending || b.livePairs(t) != 0 {
			t.Errorf("the consent ended %s, status %s, %d pairs alive", result, rec.Status, b.livePairs(t))
		}
	})
}

// accessless answers with the refresh token alone.
type accessless struct{ *rotationtest.Issuer }

func (i accessless) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := i.Issuer.Redeem(ctx, app, grant)
	answer.Body = token.NewSecret(`{"refresh_token":"` + i.Issuer.Parse(answer.Body).Pair.RefreshToken.Reveal() + `"`)
	return answer
}

func TestAFollowUpThatWasOvertakenIsNotPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.connect(t)
		b.rotate(t)
		request := rotation.Request{Op: "ensure", Connection: acme.String(), MinTTLSeconds: 600, Epoch: 1, Generation: 0, NotBefore: time.Now().Add(time.Hour)}
		report, err := b.rotator().Do(t.Context(), request)
		must(t, err)
		if report.Outcomes[rotation.Fresh] != 1 || b.queued("ensure") != 0 {
			t.Errorf("%+v, passed on %d times", report, b.queued("ensure"))
		}
		request.NotBefore = time.Now().Add(48 * time.Hour)
		if _, err := b.rotator().Do(t.Context(), request); !errors.Is(err, rotation.ErrBadRequest) {
			t.Errorf("not_before in two days: %v", err)
		}
	})
}

// queued counts the follow-ups of one kind that were asked for.
func (b *bench) queued(op string) (n int) {
	for _, e := range b.Journal.Entries() {
		if q, ok := e.Effect.(rotationtest.Queued); ok && q.Request.Op == op {
			n++
		}
	}
	return n
}
