package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// A write that the ledger refuses for another reason than a conflict is not
// repeated at full speed.
func TestARefusedBeginIsNoConflict(t *testing.T) {
	for _, kind := range []rotationtest.Kind{rotationtest.Throttle, rotationtest.Fail, rotationtest.Deny} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				time.Sleep(time.Hour)
				calls := b.counting(breakdown(time.Now().Add(time.Minute), rotationtest.Fault{Kind: kind}, "ledger.Write"))
				ctx, cancel := context.WithTimeout(t.Context(), functionLife)
				defer cancel()
				report, err := b.rotator().Sweep(ctx)
				must(t, err)
				if got := report.Connections[0]; got.Outcome != rotation.Deferred && got.Outcome != rotation.Failed {
					t.Errorf("%s, %s; want deferred", got.Outcome, got.Detail)
				}
				if w, l, s := calls["ledger.Write"], calls["ledger.Load"], calls["secrets.Current"]; w > 5 || l > 5 || s > 5 {
					t.Errorf("%d writes, %d loads and %d reads of the secret in one run", w, l, s)
				}
				if n := len(b.presentations()); n != 0 {
					t.Errorf("%d tokens were presented without an attempt", n)
				}
				b.gate(nil)
				b.operation(t).run(5 * time.Minute)
				b.presentedOnce(t)
				b.inOrder(t)
			})
		})
	}
}

// The wider kind: whichever of a run's writes is refused, neither it nor anything
// else is repeated at full speed.
func TestNoWriteIsRepeatedAtFullSpeed(t *testing.T) {
	for nth := range 3 {
		t.Run(fmt.Sprint(nth+1), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				time.Sleep(time.Hour)
				var refused time.Time // when the first write was
				writes, meanwhile := 0, map[string]int{}
				b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
					switch {
					case at.When != before:
					case at.Call == "ledger.Write" && refused.IsZero():
						if writes++; writes > nth {
							refused = time.Now()
							return throttle
						}
					case !refused.IsZero() && time.Since(refused) < 10*time.Second:
						if meanwhile[at.Call]++; at.Call == "ledger.Write" {
							return throttle
						}
					}
					return rotationtest.Fault{}
				})
				ctx, cancel := context.WithTimeout(t.Context(), functionLife)
				defer cancel()
				_, err := b.rotator().Sweep(ctx)
				must(t, err)
				for call, n := range meanwhile {
					if n > 8 {
						t.Errorf("%s is called %d times in the 10 s after a write was refused", call, n)
					}
				}
				b.gate(nil)
				b.operation(t).run(time.Hour)
				b.presentedOnce(t)
				b.inOrder(t)
			})
		})
	}
}

// conflicting is a ledger that answers a mark of a response that is not there
// as DynamoDB's conditions do: with a conflict.
type conflicting struct{ *rotationtest.Ledger }

func (l conflicting) Write(ctx context.Context, change rotation.Change) (string, error) {
	revision, err := l.Ledger.Write(ctx, change)
	if err != nil && len(change.Mark) > 0 && !errors.Is(err, rotation.ErrConflict) {
		err = fmt.Errorf("%w: %w", rotation.ErrConflict, err)
	}
	return revision, err
}

// A wrong consent that a callback and a run decide at the same time is checked
// once by each of them at most, and people are notified once.
func TestAWrongConsentDecidedByTwoIsOneNotice(t *testing.T) {
	moments := []struct {
		call string
		when rotationtest.Moment
	}{{"ledger.SaveResponse", after}, {"issuer.Identify", before}, {"issuer.Identify", after}}
	for _, moment := range moments {
		for _, asDynamo := range []bool{false, true} {
			name := fmt.Sprintf("%s %s, conflict for a missing response: %t", moment.when, moment.call, asDynamo)
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newHarness(rotationtest.Personality{})
					b.connect(t)
					time.Sleep(5 * time.Minute)
					var ledger rotation.Ledger = b.Ledger
					if asDynamo {
						ledger = conflicting{b.Ledger}
					}
					rotator := b.rotatorBut(func(cfg *rotation.Config) { cfg.Ledger = ledger })
					consents := b.consentsBut(func(cfg *rotation.ConsentsConfig) { cfg.Ledger = ledger })
					exchange, err := consents.Prepare(t.Context(), acme, 1)
					must(t, err)
					met := false
					calls := b.counting(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
						if at.Call == moment.call && at.When == moment.when && !met {
							met = true
							_, err := rotator.Publish(t.Context(), acme)
							must(t, err)
						}
						return rotationtest.Fault{}
					})
					code := b.Issuer.Authorize(sam, redirectURI, "")
					result, err := exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI})
					if result != rotation.WrongIdentity || err == nil {
						t.Errorf("the consent ended %s, %v", result, err)
					}
					// One check each, and the run looks before and after it revokes.
					if n := calls["issuer.Identify"]; n > 4 {
						t.Errorf("the owner of the consent was asked for %d times", n)
					}
					b.gate(nil)
					b.operation(t).run(2 * time.Hour)
					if n := b.noticesOf(rotation.NoticeRejected); n != 1 {
						t.Errorf("people were notified %d times, want once", n)
					}
					if live := b.livePairs(t); live != 1 {
						t.Errorf("%d pairs are alive", live)
					}
					b.inOrder(t)
				})
			})
		}
	}
}

// What the ledger says of a saved consent counts, and not the copy in memory: one
// that was rejected meanwhile is not adopted.
func TestAConsentThatWasRejectedMeanwhileIsNotAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(5 * time.Minute)
		exchange, err := b.consents().Prepare(t.Context(), acme, 1)
		must(t, err)
		rejected := false
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.Call != "ledger.SaveResponse" || at.When != after || rejected {
				return rotationtest.Fault{}
			}
			rejected = true
			rec, responses, err := b.Ledger.Load(t.Context(), acme)
			must(t, err)
			for _, m := range responses {
				if m.Key.Epoch > rec.Epoch {
					m.State, m.Reason = rotation.Rejected, "rejected by another process"
					_, err = b.Ledger.Write(t.Context(), rotation.Change{Record: rec, Mark: []rotation.TokenResponse{m}})
					must(t, err)
				}
			}
			return rotationtest.Fault{}
		})
		code := b.Issuer.Authorize(pat, redirectURI, "")
		result, _ := exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI})
		if rec := b.record(t); result == rotation.Connected || rec.Epoch != 1 {
			t.Errorf("the consent ended %s, epoch %d", result, rec.Epoch)
		}
		b.gate(nil)
		b.operation(t).run(2 * time.Hour)
		if live := b.livePairs(t); live != 1 {
			t.Errorf("%d pairs are alive", live)
		}
		b.inOrder(t)
	})
}

// A response that cannot be opened is a configuration error wherever that shows,
// and is over with its cause.
func TestAResponseThatCannotBeOpenedIsAConfigurationError(t *testing.T) {
	t.Run("in Publish", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, acme)
			must(t, err)
			other := rotationtest.NewSealer()
			consents := b.consentsBut(func(cfg *rotation.ConsentsConfig) { cfg.Sealer = other })
			exchange, err := consents.Prepare(t.Context(), acme, 0)
			must(t, err)
			code := b.Issuer.Authorize(pat, redirectURI, "")
			if result, err := exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI}); err != nil {
				t.Fatalf("the consent ended %s, %v", result, err)
			}
			b.unopenable(t, func() { b.Sealer = other })
		})
	})
	t.Run("in Redeem", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			b.connect(t)
			right := b.Sealer
			b.Sealer = rotationtest.NewSealer()
			b.unopenable(t, func() { b.Sealer = right })
		})
	})
}

// unopenable expects one notice, and that everything works with the next sweep after the
// repair.
func (b *harness) unopenable(t *testing.T, repair func()) {
	t.Helper()
	o := b.operation(t)
	o.run(5*time.Hour + time.Minute)
	if outcomes := o.outcomes(acme); outcomes[rotation.ConfigError] == 0 || outcomes[rotation.Deferred] != 0 {
		t.Errorf("outcomes %v, want config_error", outcomes)
	}
	if n := b.noticesOf(rotation.NoticeConfigError); n < 1 || n > 2 || len(b.notices()) != n {
		t.Errorf("of %d notices, %d are of a configuration error; want one", len(b.notices()), n)
	}
	repair()
	b.operation(t).run(time.Hour)
	b.inOrder(t)
}

// A code is not exchanged if no time is left to save the answer.
func TestNoCodeIsExchangedWithoutTimeToSave(t *testing.T) {
	for _, left := range []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, time.Minute} {
		t.Run(left.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, acme)
				must(t, err)
				exchange, err := b.consents().Prepare(t.Context(), acme, 0)
				must(t, err)
				b.gate(rotationtest.Always("issuer.Redeem", before, slow(3*time.Second)))
				code := b.Issuer.Authorize(pat, redirectURI, "")
				ctx, cancel := context.WithTimeout(t.Context(), left)
				defer cancel()
				result, err := exchange.Redeem(ctx, rotation.Consent{Code: code, RedirectURI: redirectURI})
				want := rotation.Unavailable
				if left >= b.settings.RedeemTimeout+20*time.Second {
					want = rotation.Connected
				}
				if result != want || (err == nil) != (want == rotation.Connected) {
					t.Errorf("with %v left: %s, %v; want %s", left, result, err, want)
				}
				if want == rotation.Unavailable && !b.Issuer.Takes(code.Fingerprint()) {
					t.Error("the code is spent")
				}
			})
		})
	}
}

// Nothing stands between the body of an answer and its saving: no log line, and
// no call of anything else.
func TestNothingStandsBetweenAnAnswerAndItsSaving(t *testing.T) {
	for _, wait := range []time.Duration{0, 30 * time.Second} {
		for _, what := range []string{"refresh", "code"} {
			t.Run(fmt.Sprintf("%s, server asks for %v", what, wait), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newHarness(rotationtest.Personality{})
					between := &between{}
					issuer := patient{b.Issuer, wait}
					log := slog.New(between)
					if what == "refresh" {
						b.connect(t)
						time.Sleep(time.Hour)
					}
					b.gate(between.gate)
					if what == "code" {
						_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, acme)
						must(t, err)
						consents := b.consentsBut(func(cfg *rotation.ConsentsConfig) { cfg.Issuer, cfg.Log = issuer, log })
						exchange, err := consents.Prepare(t.Context(), acme, 0)
						must(t, err)
						code := b.Issuer.Authorize(pat, redirectURI, "")
						_, err = exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI})
						must(t, err)
					} else {
						rotator := b.rotatorBut(func(cfg *rotation.Config) { cfg.Issuer, cfg.Log = issuer, log })
						_, err := rotator.Sweep(t.Context())
						must(t, err)
					}
					if !between.saved || len(between.what) != 0 {
						t.Errorf("saved: %t; before that: %v", between.saved, between.what)
					}
				})
			})
		}
	}
}

// patient answers like a server that asks for a wait, from now on.
type patient struct {
	*rotationtest.Issuer
	wait time.Duration
}

func (p patient) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := p.Issuer.Redeem(ctx, app, grant)
	answer.Wait = p.wait
	return answer
}

// between notes what happens from an answer until it is saved.
type between struct {
	mu     sync.Mutex
	active bool
	saved  bool
	what   []string
}

func (s *between) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active {
		s.what = append(s.what, what)
	}
}

func (s *between) gate(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
	switch {
	case at.Call == "issuer.Redeem" && at.When == after:
		s.mu.Lock()
		s.active = true
		s.mu.Unlock()
	case at.Call == "ledger.SaveResponse" && at.When == before:
		s.mu.Lock()
		s.active, s.saved = false, true
		s.mu.Unlock()
	case at.When == before:
		s.note(at.Call)
	}
	return rotationtest.Fault{}
}

func (s *between) Enabled(context.Context, slog.Level) bool { return true }
func (s *between) Handle(_ context.Context, r slog.Record) error {
	s.note("log: " + r.Message)
	return nil
}
func (s *between) WithAttrs([]slog.Attr) slog.Handler { return s }
func (s *between) WithGroup(string) slog.Handler      { return s }

// Rows of another installation, which this one leaves alone, do not stay at the
// head of what is due.
func TestRowsOfAnotherInstallationDoNotKeepTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		ours := token.Connection{Environment: "sandbox", Name: "ours"}
		b.connect(t)
		time.Sleep(10 * time.Minute)
		b.settings.Stack = "another" // acme is the first one's
		_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, ours)
		must(t, err)
		b.consentTo(t.Context(), ours)
		foreign := b.record(t)
		b.operation(t).run(5*time.Hour - time.Since(time.Now().Truncate(time.Hour)) - time.Second)
		due, err := b.Ledger.Due(t.Context(), time.Now())
		must(t, err)
		if len(due) == 0 || due[0] != ours {
			t.Errorf("what is due begins with %v, want %s", due, ours)
		}
		after := b.record(t)
		if after.Generation != foreign.Generation || after.Stack != foreign.Stack || len(b.presentations()) != 4 {
			t.Errorf("the other installation's connection was touched: %d presentations", len(b.presentations()))
		}
		b.settings.Stack = "harness" // it was a wrong setting; the next sweep puts all right
		b.operation(t).run(time.Minute)
		b.inOrder(t)
	})
}

// The row of another installation is neither disconnected nor invited to: that would end its
// tokens, or keep its row.
func TestARowOfAnotherInstallationIsLeftToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		before := b.record(t)
		b.settings.Stack = "another"
		if _, err := b.rotator().Disconnect(t.Context(), acme); err == nil || !strings.Contains(err.Error(), "another") {
			t.Errorf("disconnect: %v", err)
		}
		if _, err := rotation.RegisterUntil(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, acme,
			time.Now().Add(time.Hour)); err == nil || !strings.Contains(err.Error(), "another") {
			t.Errorf("register: %v", err)
		}
		if after := b.record(t); after.Revision != before.Revision {
			t.Errorf("the row was changed: %+v", after)
		}
	})
}
