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

var servers = map[string]rotationtest.Personality{"strict": {}, "overlap": overlap}

// unverified lets a user consent while the owner of the consent cannot be checked.
// The callback seals by the given sealer; nil: by the installation's.
func (b *harness) unverified(t *testing.T, who rotation.Identity, sealer rotation.Sealer) {
	t.Helper()
	b.gate(breakdown(forever, fail, "issuer.Identify"))
	rec, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, acme)
	must(t, err)
	consents := b.consentsBut(func(cfg *rotation.ConsentsConfig) {
		if sealer != nil {
			cfg.Sealer = sealer
		}
	})
	exchange, err := consents.Prepare(t.Context(), acme, rec.Epoch)
	must(t, err)
	code := b.Issuer.Authorize(who, redirectURI, "")
	result, err := exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI,
		Expect: rotation.Identity{Company: "42"}})
	if result != rotation.Verifying {
		t.Fatalf("the consent ended %s, %v; want verifying", result, err)
	}
}

// presentedOnce fails the test where a refresh token was presented more often.
func (b *harness) presentedOnce(t *testing.T) {
	t.Helper()
	for what, n := range b.presentations() {
		if n != 1 {
			t.Errorf("refresh token %s was presented %d times, want once", what, n)
		}
	}
}

// A consent that waits for its identity check, or that cannot be opened, does
// not keep the current epoch's own successor from being decided.
func TestRotationGoesOnWhileAConsentWaits(t *testing.T) {
	for name, server := range servers {
		for _, sealer := range []rotation.Sealer{nil, rotationtest.NewSealer()} {
			what := ", check impossible"
			if sealer != nil {
				what = ", cannot be opened"
			}
			t.Run(name+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newHarness(server)
					b.connect(t)
					connected := time.Now()
					time.Sleep(10 * time.Minute)
					b.unverified(t, pat, sealer)
					b.operation(t).run(5 * time.Hour)
					rec := b.record(t)
					if rec.Status != rotation.Active || rec.Epoch != 1 || rec.Generation < 4 {
						t.Errorf("after 5 hours: %s (%d,%d), want active (1,5)", rec.Status, rec.Epoch, rec.Generation)
					}
					if gone := b.dead(t, acme, connected); gone != 0 {
						t.Errorf("readers had no live token for %v", gone)
					}
					if n := b.noticesOf(rotation.NoticeNeedsConsent); n != 0 {
						t.Errorf("people were asked %d times for a consent that nobody needs", n)
					}
					b.presentedOnce(t)
					b.traceIfFailed(t)
				})
			})
		}
	}
}

// The wider kind: the successor itself cannot be decided for a while, beside a
// consent that waits. Its parent is not presented again.
func TestASuccessorThatWaitsBesideAConsentIsNotOverlooked(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &faultScenario{harness: newHarness(server), t: t}
				m.connect(t)
				time.Sleep(10 * time.Minute)
				m.unverified(t, pat, nil)
				time.Sleep(50 * time.Minute)
				m.through(breakdown(forever, fail, "issuer.Identify"))
				m.first("ledger.SaveResponse", after, crash)
				if outcome := m.rotate(); outcome != crashed {
					t.Fatalf("the rotation ended %s", outcome)
				}
				m.calm().through(breakdown(forever, fail, "issuer.Identify"))
				m.through(breakdown(time.Now().Add(5*time.Minute), fail, "sealer.Unwrap"))
				m.operation(t).run(2*time.Hour + 10*time.Minute)
				m.presentedOnce(t)
				m.calm().operation(t).run(time.Hour)
				m.presentedOnce(t)
				m.inOrder(t)
			})
		})
	}
}

// A discard ends a consent that cannot be opened. Such a consent does not hide a later one.
func TestAConsentThatCannotBeOpenedCanBeDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(10 * time.Minute)
		b.unverified(t, pat, rotationtest.NewSealer())
		b.gate(nil)
		o := b.operation(t)
		o.run(time.Hour)
		if n := b.noticesOf(rotation.NoticeConfigError); n == 0 {
			t.Error("nobody was notified of a consent that cannot be opened")
		}
		report, err := b.rotator().Discard(t.Context(), acme)
		if err != nil {
			t.Fatalf("discarding it: %v", err)
		}
		if got := report.Connections[0].Outcome; got == rotation.ConfigError {
			t.Errorf("after discarding it: %s", got)
		}
		if _, err := b.rotator().Discard(t.Context(), acme); !errors.Is(err, rotation.ErrNothingQuarantined) {
			t.Errorf("discarding once more: %v; want that there is nothing", err)
		}
		o = b.operation(t)
		o.run(3 * time.Hour)
		if n := o.outcomes(acme)[rotation.ConfigError]; n != 0 {
			t.Errorf("config_error was reported %d times after the discard", n)
		}
		b.presentedOnce(t)
		b.inOrder(t)
	})
}

// A response that waits because of the configuration, and can be opened, does not hide
// one that cannot.
func TestDiscardFindsTheResponseThatCannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(10 * time.Minute)
		b.unverified(t, pat, rotationtest.NewSealer()) // the older one
		time.Sleep(time.Minute)
		b.unverified(t, pat, nil)
		b.gate(nil)
		_, responses := must2(b.Ledger.Load(t.Context(), acme))
		b.rewrite(func(r *rotation.Record) rotation.Change {
			for _, m := range responses {
				if m.Key != r.Current.Response {
					r.Failures = append(r.Failures, rotation.Failure{Step: rotation.Decide, Response: m.Key, Class: "config",
						Count: 1, NextAt: time.Now().Add(10 * time.Minute)})
				}
			}
			return rotation.Change{}
		})
		must1(b.rotator().Discard(t.Context(), acme))
		_, left := must2(b.Ledger.Load(t.Context(), acme))
		for _, m := range left {
			if openable := m.Key != responses[1].Key; openable && m.State == rotation.Rejected {
				t.Errorf("%v is discarded, which can be opened", m.Key)
			}
		}
		if _, err := b.rotator().Discard(t.Context(), acme); !errors.Is(err, rotation.ErrNothingQuarantined) {
			t.Errorf("discarding once more: %v; want that there is nothing", err)
		}
	})
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

func TestWaitingConsentsDoNotHideEachOther(t *testing.T) {
	for _, connected := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			if connected {
				b.connect(t)
			}
			time.Sleep(10 * time.Minute)
			b.unverified(t, pat, rotationtest.NewSealer())
			time.Sleep(5 * time.Minute)
			b.unverified(t, pat, nil)
			time.Sleep(5 * time.Minute)
			epoch := b.record(t).Epoch
			b.gate(nil)
			b.operation(t).run(time.Hour)
			rec := b.record(t)
			if rec.Status != rotation.Active || rec.Epoch != epoch+1 {
				t.Errorf("connected before: %t; %s, epoch %d; want the second consent's pair", connected, rec.Status, rec.Epoch)
			}
			if doc, err := b.read(t.Context()); err != nil || doc.Epoch != epoch+1 {
				t.Errorf("readers see epoch %d, %v", doc.Epoch, err)
			}
			b.inOrder(t)
		})
	}
}

// A check that has to wait longer than the access token lives proves nothing
// about the owner of the consent. The pair is refreshed and checked then.
func TestAConsentIsNotDiscardedForWaiting(t *testing.T) {
	tests := []struct {
		name      string
		connected bool
		lifetime  time.Duration
		wait      time.Duration
	}{
		{"first consent, two hours", false, 0, 2 * time.Hour},
		{"first consent, a day", false, 0, 24 * time.Hour},
		{"first consent, tokens of 15 minutes", false, 900 * time.Second, 20 * time.Minute},
		{"another consent, three hours", true, 0, 3 * time.Hour},
	}
	for _, test := range tests {
		for name, server := range servers {
			t.Run(test.name+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server.Lifetime = test.lifetime
					b := newHarness(server)
					if test.connected {
						b.connect(t)
					}
					connected := time.Now()
					time.Sleep(10 * time.Minute)
					b.unverified(t, pat, nil)
					epoch := b.record(t).Epoch
					b.operation(t).run(test.wait)
					if test.connected {
						if gone := b.dead(t, acme, connected); gone != 0 {
							t.Errorf("while the consent waited, readers had no live token for %v", gone)
						}
					}
					b.gate(nil)
					b.operation(t).run(time.Hour + 5*time.Minute)
					if rec := b.record(t); rec.Status != rotation.Active || rec.Epoch != epoch+1 {
						t.Errorf("after the repair: %s, epoch %d; want active by the consent", rec.Status, rec.Epoch)
					}
					if n := b.noticesOf(rotation.NoticeRejected); n != 0 {
						t.Errorf("%d notices say that the consent was rejected", n)
					}
					// With overlap, an unused pair keeps its parent alive.
					if live := b.livePairs(t); live != 1 && name == "strict" {
						t.Errorf("%d pairs are alive", live)
					}
					b.presentedOnce(t)
					b.inOrder(t)
				})
			})
		}
	}
}

// The answer to the refresh of a waiting consent is found like any other answer.
func TestAWaitingConsentsRefreshSurvivesACrash(t *testing.T) {
	for _, call := range []string{"issuer.Identify", "ledger.SaveResponse", "ledger.Write"} {
		for _, when := range []rotationtest.Moment{before, after} {
			if call == "ledger.SaveResponse" && when == before {
				continue // the answer is saved nowhere
			}
			t.Run(string(when)+" "+call, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := &faultScenario{harness: newHarness(rotationtest.Personality{}), t: t}
					time.Sleep(10 * time.Minute)
					m.unverified(t, pat, nil)
					m.operation(t).run(2 * time.Hour)
					m.calm()
					redeemed := false
					m.through(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
						redeemed = redeemed || at.Call == "issuer.Redeem" && at.When == after
						if redeemed && at.Call == call && at.When == when {
							redeemed = false
							return crash
						}
						return rotationtest.Fault{}
					})
					m.sweep()
					for range 3 {
						time.Sleep(5 * time.Minute)
						m.sweep()
					}
					m.calm().operation(t).run(time.Hour)
					m.presentedOnce(t)
					m.inOrder(t)
				})
			})
		}
	}
}

// Waiting does not make the check lenient: a consent of another user is rejected and revoked
// once it can be checked, however long that took. So is one with a live token that the
// server does not accept.
func TestAConsentThatWaitedIsStillChecked(t *testing.T) {
	for name, who := range map[string]rotation.Identity{"another user": sam, "token refused": pat} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				time.Sleep(10 * time.Minute)
				b.unverified(t, who, nil)
				b.operation(t).run(3 * time.Hour)
				b.gate(nil)
				if who == pat {
					b.issuer = refusing{b.Issuer}
				}
				b.operation(t).run(2*time.Hour + 5*time.Minute)
				b.issuer = nil
				rec := b.record(t)
				if rec.Status != rotation.Active || rec.Epoch != 1 {
					t.Errorf("%s, epoch %d; want that the first consent goes on", rec.Status, rec.Epoch)
				}
				if n := b.noticesOf(rotation.NoticeRejected); n != 1 {
					t.Errorf("%d notices say that the consent was rejected, want one", n)
				}
				if n := len(b.presentations()); n <= int(rec.Generation) {
					t.Errorf("%d refresh tokens were presented, all of the first consent: the other was judged when expired", n)
				}
				if live := b.livePairs(t); live != 1 {
					t.Errorf("%d pairs are alive, want the first consent's only", live)
				}
				b.presentedOnce(t)
				b.inOrder(t)
			})
		})
	}
}

// refusing accepts no access token when asked for its owner.
type refusing struct{ *rotationtest.Issuer }

func (refusing) Identify(context.Context, rotation.Application, token.Secret, string) (rotation.Identity, error) {
	return rotation.Identity{}, rotation.ErrTokenRefused
}

// What the ledger did not take of a waiting consent's refresh is in the secret
// store, if there is one yet.
func TestAWaitingConsentsRefreshIsFoundInTheSecretStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &faultScenario{harness: newHarness(rotationtest.Personality{}), t: t}
		m.connect(t)
		m.unverified(t, pat, nil)
		time.Sleep(3 * time.Hour)
		waiting := false
		m.calm().through(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			waiting = waiting || at.Call == "issuer.Redeem" && at.When == after
			if waiting && strings.HasPrefix(at.Call, "ledger.") && at.When == before {
				return fail
			}
			return rotationtest.Fault{}
		})
		m.process(func(ctx context.Context) (rotation.Report, error) { return m.rotator().Sweep(ctx) })
		m.calm().operation(t).run(2 * time.Hour)
		if rec := m.record(t); rec.Epoch != 2 {
			t.Errorf("%s, epoch %d; want active by the consent", rec.Status, rec.Epoch)
		}
		m.presentedOnce(t)
		m.inOrder(t)
	})
}

// A consent that was refreshed, checked and rejected does not delay another one.
func TestARejectedConsentDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.gate(breakdown(forever, fail, "issuer.Identify"))
		for _, who := range []rotation.Identity{sam, pat} {
			if result, err := b.consent(t.Context(), who, rotation.Identity{Login: pat.Login}); result != rotation.Verifying {
				t.Fatalf("%s, %v", result, err)
			}
			time.Sleep(time.Minute)
		}
		b.operation(t).run(3 * time.Hour)
		b.gate(nil)
		b.operation(t).run(3 * time.Hour)
		if rec := b.record(t); rec.Status != rotation.Active || rec.Pin.ResourceOwner != pat.ResourceOwner {
			t.Errorf("%s, %+v; want active by the second consent", rec.Status, rec.Pin)
		}
		b.inOrder(t)
	})
}
