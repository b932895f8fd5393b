package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// Several runs that handle one connection at the worst moment.

func TestAPresentationWithAnOpenEndIsNotForgottenByALaterOneThatSpentNothing(t *testing.T) {
	for name, personality := range rotationtest.Personalities {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(personality)
				b.connect(t)
				time.Sleep(time.Hour)
				storesBack := time.Now().Add(5 * time.Minute)
				b.gate(func(ctx context.Context, at rotationtest.Passage) rotationtest.Fault {
					switch {
					case at.When != rotationtest.Before:
					case at.Actor == "saver" && (at.Call == "ledger.SaveResponse" || at.Call == "secrets.Put" &&
						time.Now().Before(storesBack)):
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
				if err := b.settle(t.Context()); err != nil {
					t.Error(err)
				}
				if rec := b.record(t); rec.Status != rotation.Active && !personality.NoRotation {
					t.Errorf("status %s\n%s", rec.Status, b.Journal)
				}
			})
		})
	}
}

// otherKeys is a process with wrong keys.
type otherKeys struct{ rotation.Sealer }

func (otherKeys) Unwrap(context.Context, []byte) ([]byte, error) {
	return nil, fmt.Errorf("another encryption context: %w", rotation.ErrUnsealable)
}

func TestAMisconfiguredProcessDoesNoHarm(t *testing.T) {
	for _, stack := range []string{"harness", "other"} { // wrong keys alone, and a wrong stack id with them
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			b.connect(t)
			time.Sleep(time.Hour)
			b.crashAfter(t, 1, "ledger.SaveResponse")
			r, err := rotation.NewRotator(rotation.Config{Ledger: b.Ledger, SecretStore: b.SecretStore,
				Sealer: otherKeys{b.Sealer}, Applications: b.Applications,
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
func (b *harness) crashAfter(t *testing.T, n int, call string) {
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

func TestAShortStoreFaultIsOverInMinutesNotAtTheNextSweep(t *testing.T) {
	for _, call := range []string{"secrets.Current", "sealer.DataKey", "secrets.Put", "secrets.Promote",
		"ledger.SaveResponse"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
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
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		b.Issuer.Wait = 15 * time.Minute
		unidentified := rotationtest.Always("issuer.Identify", rotationtest.Before,
			rotationtest.Fault{Kind: rotationtest.Fail})
		b.gate(unidentified)
		if result, _ := b.consent(t.Context(), pat, rotation.Identity{}); result != rotation.Verifying {
			t.Fatalf("the consent ended %s", result)
		}
		b.gate(rotationtest.Gates(unidentified, rotationtest.Always("issuer.Redeem", rotationtest.Before,
			rotationtest.Fault{Kind: rotationtest.Throttle})))
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

func TestRunsThatNeverHaveTimeDoNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
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
func (b *harness) followUpsWithin(t *testing.T, timeout time.Duration, sweeps int) int {
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

func TestARefusedTokenIsNotPresentedAgainBecauseTheSecretStoreCouldNotBeSearched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		doc, err := b.read(t.Context())
		must(t, err)
		b.Issuer.Withdraw(t.Context(), doc.AccessToken)
		current := b.record(t).Current.Fingerprint
		b.gate(rotationtest.Always("secrets.Versions", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Fail}))
		b.sweep(t)
		if rec := b.record(t); rec.Status != rotation.Active {
			t.Errorf("status %s before everything was searched", rec.Status)
		}
		b.gate(nil)
		time.Sleep(10 * time.Minute)
		b.sweep(t)
		if n, rec := b.presentations()[current], b.record(t); n != 1 || rec.Status != rotation.NeedsConsent {
			t.Errorf("presented %d times, status %s", n, rec.Status)
		}
	})
}

func TestASupersededFollowUpIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		b.rotate(t)
		request := rotation.Request{Op: "ensure", Connection: acme.String(), MinTTLSeconds: 600, Epoch: 1, Generation: 0,
			NotBefore: time.Now().Add(time.Hour)}
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

// queued counts the follow-ups of one kind that were requested.
func (b *harness) queued(op string) (n int) {
	for _, e := range b.Journal.Entries() {
		if q, ok := e.Effect.(rotationtest.Queued); ok && q.Request.Op == op {
			n++
		}
	}
	return n
}
