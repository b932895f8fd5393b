package rotation_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// encoded answers in an encoding that this program can read only once it is new enough.
type encoded struct {
	*rotationtest.Issuer
	newer  bool
	useful func(grant rotation.Grant) bool // which answers are encoded; nil: all
}

const unreadable = rotation.Verdict("unreadable")

func (e *encoded) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := e.Issuer.Redeem(ctx, app, grant)
	if answer.Class == rotation.Captured && (e.useful == nil || e.useful(grant)) {
		answer.Body = token.NewSecret("\x1f\x8b" + base64.StdEncoding.EncodeToString([]byte(answer.Body.Reveal())))
	}
	return answer
}

func (e *encoded) Parse(body token.Secret) rotation.Judgement {
	inside, isEncoded := strings.CutPrefix(body.Reveal(), "\x1f\x8b")
	if !isEncoded {
		return e.Issuer.Parse(body)
	}
	plain, err := base64.StdEncoding.DecodeString(inside)
	if !e.newer || err != nil {
		return rotation.Judgement{Verdict: unreadable, Reason: "the answer is in an encoding that is not known"}
	}
	return e.Issuer.Parse(token.NewSecret(string(plain)))
}

// A whole answer that this program cannot read is kept and nothing is presented,
// until a program that can read it decides it, without a person.
func TestAnAnswerThatCannotBeReadWaitsForAProgramThatCan(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(server)
				b.connect(t)
				issuer := &encoded{Issuer: b.Issuer}
				b.issuer = issuer
				o := b.operation(t)
				o.run(2*24*time.Hour + time.Minute)
				if n := o.outcomes(acme)[rotation.InQuarantine]; n == 0 {
					t.Errorf("outcomes %v, want quarantined", o.outcomes(acme))
				}
				if got := b.rotate(t); got.Outcome != rotation.InQuarantine {
					t.Errorf("a forced rotation answers %s", got.Outcome)
				}
				rec := b.record(t)
				if rec.Status != rotation.Active || rec.Generation != 0 || !rec.Quarantined {
					t.Errorf("%s (%d,%d), quarantined %t", rec.Status, rec.Epoch, rec.Generation, rec.Quarantined)
				}
				if n := b.noticesOf(rotation.NoticeQuarantined); n != 1 || len(b.notices()) != n {
					t.Errorf("of %d notices, %d are of a quarantine; want one and no other", len(b.notices()), n)
				}
				b.presentedOnce(t)
				issuer.newer = true
				b.operation(t).run(25 * time.Hour)
				if rec := b.record(t); rec.Generation == 0 || rec.Quarantined {
					t.Errorf("a day after the program can read it: generation %d, quarantined %t", rec.Generation, rec.Quarantined)
				}
				b.presentedOnce(t)
				b.inOrder(t)
			})
		})
	}
}

// The wider kind: an unreadable answer to a code, which no run may throw away or
// revoke, and a person's discard of an unreadable answer.
func TestAConsentThatCannotBeReadWaitsForAProgramThatCan(t *testing.T) {
	for _, connected := range []bool{false, true} {
		t.Run(fmt.Sprintf("connected before: %t", connected), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				if connected {
					b.connect(t)
				}
				from := time.Now()
				time.Sleep(10 * time.Minute)
				issuer := &encoded{Issuer: b.Issuer, useful: func(g rotation.Grant) bool { return !g.Code.IsZero() }}
				b.issuer = issuer
				epoch := b.record(t).Epoch
				if result, _ := b.consent(t.Context(), pat, rotation.Identity{Company: "42"}); result == rotation.Connected {
					t.Errorf("the consent ended %s", result)
				}
				b.operation(t).run(5 * time.Hour)
				if connected {
					if gone := b.dead(t, acme, from); gone != 0 {
						t.Errorf("readers had no live token for %v", gone)
					}
				}
				issuer.newer = true
				b.operation(t).run(25 * time.Hour)
				if rec := b.record(t); rec.Status != rotation.Active || rec.Epoch != epoch+1 {
					t.Errorf("a day after the program can read it: %s, epoch %d; want active by the consent", rec.Status, rec.Epoch)
				}
				b.inOrder(t)
			})
		})
	}
}

func TestAnUnreadableAnswerCanBeDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(overlap)
		b.connect(t)
		b.issuer = &encoded{Issuer: b.Issuer}
		b.operation(t).run(3*time.Hour + time.Minute)
		b.issuer = nil
		_, err := b.rotator().Discard(t.Context(), acme)
		must(t, err)
		b.operation(t).run(time.Hour)
		b.inOrder(t)
	})
}

// falsely refuses the present refresh tokens so many times, as a server in
// trouble does.
func (b *harness) falsely(t *testing.T, times int, connections ...token.Connection) *scripted {
	t.Helper()
	refused := map[token.Fingerprint]bool{}
	for _, c := range connections {
		rec, _, err := b.Ledger.Load(t.Context(), c)
		must(t, err)
		refused[rec.Current.Fingerprint] = true
	}
	return &scripted{Issuer: b.Issuer, answer: func(grant rotation.Grant, nth int) *rotation.Answer {
		if refused[grant.RefreshToken.Fingerprint()] && nth <= times {
			return &rotation.Answer{Class: rotation.Refused, Detail: "invalid_grant"}
		}
		return nil
	}}
}

// needs_consent is soft: a token that was refused is presented again after 15
// minutes, 1 hour, 6 hours and 24 hours, and then no more.
func TestAFalseRefusalIsNotFinal(t *testing.T) {
	for i, within := range []time.Duration{20 * time.Minute, 3 * time.Hour, 9 * time.Hour, 33 * time.Hour} {
		times := i + 1
		t.Run(fmt.Sprintf("refused %d times", times), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				issuer := b.falsely(t, times, acme)
				b.issuer = issuer
				b.operation(t).run(time.Hour + time.Minute)
				if rec := b.record(t); rec.Status != rotation.NeedsConsent {
					t.Fatalf("after the refusal: %s", rec.Status)
				}
				b.operation(t).run(within)
				if n := issuer.presentations(); n < times+1 {
					t.Errorf("presented %d times within %v, want %d", n, within, times+1)
				}
				for kind, want := range map[string]int{rotation.NoticeNeedsConsent: 1, rotation.NoticeRecovered: 1} {
					if n := b.noticesOf(kind); n != want {
						t.Errorf("people were notified of %s %d times, want %d", kind, n, want)
					}
				}
				b.issuer = nil
				b.inOrder(t)
			})
		})
	}
	t.Run("refused forever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			b.connect(t)
			issuer := b.falsely(t, 1000, acme)
			b.issuer = issuer
			b.operation(t).run(34 * time.Hour)
			if n := issuer.presentations(); n != 5 {
				t.Errorf("presented %d times in 33 hours, want 5", n)
			}
			b.operation(t).run(72 * time.Hour)
			if n := issuer.presentations(); n != 5 {
				t.Errorf("presented %d times in all, want 5", n)
			}
			if n := b.noticesOf(rotation.NoticeNeedsConsent); n != 1 || len(b.notices()) != n {
				t.Errorf("of %d notices, %d ask for a consent; want one and no other", len(b.notices()), n)
			}
		})
	})
}

// One false answer to four connections is one incident: one notice, and all
// recover by themselves.
func TestARefusalOfManyIsOneIncident(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		names := connectMany(t, b, 4)
		issuer := b.falsely(t, 1, names...)
		b.issuer = issuer
		b.operation(t).run(time.Hour + time.Minute)
		if n := b.noticesOf(rotation.NoticeNeedsConsent); n != 1 {
			t.Errorf("%d notices of one incident", n)
		}
		b.operation(t).run(20 * time.Minute)
		for _, c := range names {
			if rec, _, err := b.Ledger.Load(t.Context(), c); err != nil || rec.Status != rotation.Active || rec.Generation != 1 {
				t.Errorf("%s: %s, generation %d, %v", c, rec.Status, rec.Generation, err)
			}
		}
		if n := issuer.presentations(); n != 2*len(names) {
			t.Errorf("%d presentations, want each token twice", n)
		}
		if n := b.noticesOf(rotation.NoticeRecovered); n < 1 || n > len(names) {
			t.Errorf("people were notified of a recovery %d times", n)
		}
		b.operation(t).run(3 * time.Hour)
		if n := b.noticesOf(rotation.NoticeNeedsConsent); n != 1 {
			t.Errorf("%d notices in the end", n)
		}
	})
}

// The answer to a forced rotation is lost long before the token is due. The server may have
// ended the old pair by then, so the token is presented again after the quiet period, not
// when it would be due.
func TestALostAnswerToAForcedRotationIsSettledSoon(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &faultScenario{harness: newHarness(server), t: t}
				m.connect(t)
				time.Sleep(time.Minute)
				m.first("issuer.Redeem", after, fail)
				if got := m.rotate(); got != rotation.Unknown {
					t.Fatalf("the forced rotation ended %s", got)
				}
				m.calm().operation(t).run(m.settings.Lease + m.settings.Quiet + time.Minute)
				rec, _, err := m.Ledger.Load(t.Context(), acme)
				must(t, err)
				want := map[string]rotation.Status{"strict": rotation.NeedsConsent, "overlap": rotation.Active}[name]
				if rec.Status != want || rec.Attempt != nil || m.mostShown() != 2 {
					t.Errorf("status %s with attempt %v after %d presentations, want %s", rec.Status, rec.Attempt, m.mostShown(),
						want)
				}
			})
		})
	}
}

// No run comes for hours after a refusal. The next one presents the token once, not once
// for each time that has passed.
func TestALateTryOfARefusedTokenStandsForAllThatWereDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		b.withdrawAll(t, []token.Connection{acme})
		time.Sleep(61 * time.Minute)
		b.sweep(t)
		refused := b.presentations()
		time.Sleep(2 * time.Hour)
		for range 20 {
			b.deliver(t.Context())
			b.sweep(t)
			time.Sleep(10 * time.Second)
		}
		for what, n := range b.presentations() {
			if n != refused[what]+1 {
				t.Errorf("the refused token was presented %d times within minutes, want once", n-refused[what])
			}
		}
		rec, _, err := b.Ledger.Load(t.Context(), acme)
		must(t, err)
		if next := rec.Refusal.At.Add(6 * time.Hour); !rec.Refusal.NextAt.Equal(next) {
			t.Errorf("the next try is at %v, want %v", rec.Refusal.NextAt, next)
		}
	})
}

// A person's rotate presents a refused token at once, whether it recovers or not.
func TestAPersonsRotateTriesARefusedTokenAtOnce(t *testing.T) {
	t.Run("it lives", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			b.connect(t)
			b.issuer = b.falsely(t, 1, acme)
			b.operation(t).run(time.Hour + time.Minute)
			if got := b.rotate(t); got.Outcome != rotation.Rotated && got.Outcome != rotation.Recovered {
				t.Errorf("rotate answers %s", got.Outcome)
			}
			if n := b.noticesOf(rotation.NoticeRecovered); n != 1 {
				t.Errorf("people were notified of the recovery %d times", n)
			}
			b.issuer = nil
			b.inOrder(t)
		})
	})
	t.Run("it is dead", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			b.connect(t)
			b.withdrawAll(t, []token.Connection{acme})
			b.operation(t).run(time.Hour + time.Minute)
			before := len(b.notices())
			presented := b.presentations()
			if got := b.rotate(t); got.Outcome != rotation.ConsentNeeded {
				t.Errorf("rotate answers %s", got.Outcome)
			}
			for what, n := range b.presentations() {
				if n != presented[what]+1 {
					t.Errorf("the token was presented %d times by a person's rotate, want once", n-presented[what])
				}
			}
			if len(b.notices()) != before {
				t.Errorf("people were notified of it again: %d notices", len(b.notices()))
			}
			if result, err := b.consent(t.Context(), pat, rotation.Identity{Company: "42"}); result != rotation.Connected {
				t.Fatalf("a new consent ended %s, %v", result, err)
			}
			b.deliver(t.Context())
			b.inOrder(t)
		})
	})
	t.Run("a successor turns up first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &faultScenario{harness: newHarness(rotationtest.Personality{}), t: t}
			m.connect(t)
			m.issuer = m.falsely(t, 1, acme)
			m.operation(t).run(time.Hour + time.Minute)
			m.first("ledger.SaveResponse", after, crash)
			m.rotate() // presents it, and dies
			m.calm().operation(t).run(time.Hour)
			m.presentedOnce(t)
			m.issuer = nil
			m.inOrder(t)
		})
	})
}

// blocked answers every redeem as a web firewall does, from then on.
func blocked(i *rotationtest.Issuer, detail string) *scripted {
	return &scripted{Issuer: i, answer: func(rotation.Grant, int) *rotation.Answer {
		return &rotation.Answer{Class: rotation.Class("odd_refusal"), Detail: detail}
	}}
}

// A refusal that lasts and has no known OAuth error is a fault in the way to the
// server, and people are notified of it. The token is presented less and less often, and
// the connection recovers once the server can be reached.
func TestALastingOddRefusalIsAConfigurationError(t *testing.T) {
	const detail = "HTTP 403 text/html"
	for _, service := range []bool{false, true} {
		t.Run(fmt.Sprintf("service account: %t", service), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				if service {
					b.serve(t)
				} else {
					b.connect(t)
				}
				issuer := blocked(b.Issuer, detail)
				b.issuer = issuer
				o := b.operation(t)
				o.run(72*time.Hour + 10*time.Minute)
				if n := issuer.presentations(); n < 8 || n > 20 {
					t.Errorf("presented %d times in 72 hours, want 8 to 20", n)
				}
				if n := o.outcomes(acme)[rotation.ConfigError]; n == 0 {
					t.Errorf("outcomes %v, want config_error", o.outcomes(acme))
				}
				if n := b.noticesOf(rotation.NoticeConfigError); n < 1 || n > 4 {
					t.Errorf("%d config_error notices in three days", n)
				}
				if n := len(b.notices()); n > 5 {
					t.Errorf("%d notices in three days", n)
				}
				if rec := b.record(t); rec.Status != rotation.Active {
					t.Errorf("status %s", rec.Status)
				}
				if got := b.rotate(t); got.Outcome != rotation.ConfigError || !strings.Contains(got.Detail, detail) {
					t.Errorf("a forced rotation answers %s, %q; want config_error with %q", got.Outcome, got.Detail, detail)
				}
				b.issuer = nil
				b.operation(t).run(7*time.Hour + time.Minute)
				if service {
					if rec := b.record(t); rec.Generation < 2 {
						t.Errorf("seven hours after the repair: generation %d", rec.Generation)
					}
					return
				}
				b.inOrder(t)
			})
		})
	}
}

// A forced rotation right after the repair needs no waiting, though the ends of
// the refused presentations are unknown.
func TestAnOddRefusalIsOverWithItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		b.issuer = blocked(b.Issuer, "HTTP 403 text/html")
		b.operation(t).run(24*time.Hour + 10*time.Minute)
		b.issuer = nil
		if got := b.rotate(t); got.Outcome != rotation.Rotated && got.Outcome != rotation.Recovered {
			t.Errorf("a forced rotation after the repair answers %s, %s", got.Outcome, got.Detail)
		}
		b.inOrder(t)
	})
}

// Odd refusals that do not repeat are no configuration error.
func TestAnOddRefusalNowAndThenIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		odd := rotation.Answer{Class: rotation.Class("odd_refusal"), Detail: "HTTP 403 text/html"}
		b.issuer = &scripted{Issuer: b.Issuer, answer: func(_ rotation.Grant, nth int) *rotation.Answer {
			if nth <= 2 { // each token twice
				return &odd
			}
			return nil
		}}
		o := b.operation(t)
		o.run(12*time.Hour + 30*time.Minute)
		if n := o.outcomes(acme)[rotation.ConfigError]; n != 0 {
			t.Errorf("config_error was reported %d times: %v", n, o.outcomes(acme))
		}
		if n := b.noticesOf(rotation.NoticeConfigError); n != 0 {
			t.Errorf("%d config_error notices", n)
		}
		b.issuer = nil
		b.inOrder(t)
	})
}
