package rotation_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// fixable is a cause that a person can fix, and the repair.
type fixable struct {
	name   string
	breaks func(t *testing.T, b *harness) (repair func())
}

func fixables() []fixable {
	wrong := app
	wrong.ClientSecret = token.NewSecret("canary-wrong")
	elsewhere := app
	elsewhere.ClientID = "client-2"
	gated := func(fault rotationtest.Fault, calls ...string) func(*testing.T, *harness) func() {
		return func(_ *testing.T, b *harness) func() {
			b.gate(breakdown(forever, fault, calls...))
			return func() { b.gate(nil) }
		}
	}
	deny := rotationtest.Fault{Kind: rotationtest.Deny}
	return []fixable{
		{"the client secret is wrong", func(_ *testing.T, b *harness) func() {
			b.Applications.Set(wrong)
			return func() { b.Applications.Set(app) }
		}},
		{"the client id is another app's", func(_ *testing.T, b *harness) func() {
			b.Applications.Set(elsewhere)
			return func() { b.Applications.Set(app) }
		}},
		{"the server finds fault with the request", func(_ *testing.T, b *harness) func() {
			b.issuer = &scripted{Issuer: b.Issuer, answer: func(rotation.Grant, int) *rotation.Answer {
				return &rotation.Answer{Class: rotation.RequestFault, Detail: "HTTP 400 unsupported_grant_type"}
			}}
			return func() { b.issuer = nil }
		}},
		{"the secret is scheduled for deletion", func(_ *testing.T, b *harness) func() {
			b.SecretStore.Delete(acme)
			return func() { b.SecretStore.Restore(acme) }
		}},
		{"the secret shows another installation's document", func(t *testing.T, b *harness) func() {
			doc, err := b.read(t.Context())
			must(t, err)
			m, was := &faultScenario{harness: b, t: t}, b.SecretStore.Label(acme, "AWSCURRENT")
			m.foreign(doc, "another", 0)
			return func() { must(t, b.SecretStore.RollBack(t.Context(), acme, was)) }
		}},
		{"the key for sealing is another one", func(_ *testing.T, b *harness) func() {
			was := b.Sealer
			b.Sealer = rotationtest.NewSealer()
			return func() { b.Sealer = was }
		}},
		{"the right to make data keys is missing", gated(deny, "sealer.DataKey")},
		{"the right to use the key is missing", gated(deny, "sealer.Unwrap")},
		{"the right to read the secret is missing", gated(deny, "secrets.Current")},
		{"the right to read the app credentials is missing", gated(deny, "applications.Application")},
		{"the login host cannot be reached", gated(unsent, "issuer.Redeem")},
	}
}

// Whatever the cause was and however long it lasted: after the repair the next
// forced rotation asks again at once, and so does the next scheduled sweep.
func TestARepairTakesEffectAtOnce(t *testing.T) {
	for _, cause := range fixables() {
		for _, tries := range []int{1, 6} {
			t.Run(fmt.Sprintf("%s, %d tries", cause.name, tries), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newHarness(rotationtest.Personality{})
					b.connect(t)
					repair := cause.breaks(t, b)
					b.operation(t).run(time.Hour + time.Minute)
					for range tries {
						if got := b.rotate(t); got.Outcome == rotation.Rotated {
							t.Fatal("it was rotated in spite of the cause")
						}
					}
					repair()
					if got := b.rotate(t); got.Outcome != rotation.Rotated {
						t.Errorf("right after the repair: %s, %s", got.Outcome, got.Detail)
					}
					b.spentOnce(t)
					b.inOrder(t)
				})
			})
		}
		t.Run(cause.name+", by sweeps alone", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				repair := cause.breaks(t, b)
				b.operation(t).run(5*time.Hour + 59*time.Minute)
				repair()
				b.operation(t).run(2 * time.Minute)
				b.inOrder(t)
			})
		})
	}
}

// spentOnce fails the test where a token was presented again
// after the server had taken it.
func (b *harness) spentOnce(t *testing.T) {
	t.Helper()
	granted := map[token.Fingerprint]int{}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case rotationtest.Presented:
			if granted[effect.What] > 0 {
				t.Errorf("presentation %d is of a token that was spent before", effect.N)
			}
		case rotationtest.Granted:
			granted[effect.What]++
		}
	}
}

// config_error is always about the current credentials: with new ones, the server is asked
// before anything is reported about them.
func TestConfigErrorIsAboutTheCredentialsOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		asked := &asking{Issuer: b.Issuer}
		b.issuer = asked
		ensure := rotation.Request{Op: "ensure", Connection: acme.String(), MinTTLSeconds: 3600}
		for i := range 4 {
			wrong := app
			wrong.ClientSecret = token.NewSecret(fmt.Sprintf("canary-wrong-%d", i))
			b.Applications.Set(wrong)
			requests := map[string]func() (rotation.Report, error){
				"rotate": func() (rotation.Report, error) { return b.rotator().Rotate(t.Context(), acme) },
				"ensure": func() (rotation.Report, error) { return b.rotator().Do(t.Context(), ensure) },
			}
			op := "rotate"
			if i%2 == 1 {
				op = "ensure"
			}
			report, err := requests[op]()
			must(t, err)
			if got := report.Connections[0].Outcome; got != rotation.ConfigError {
				t.Errorf("%s with wrong secret %d: %s", op, i, got)
			}
			if asked.last() != wrong {
				t.Errorf("%s answered config_error and has not tried the secret of now, number %d", op, i)
			}
			time.Sleep(20 * time.Second)
		}
		b.Applications.Set(app)
		report, err := b.rotator().Do(t.Context(), ensure)
		must(t, err)
		if got := report.Connections[0].Outcome; got != rotation.Rotated {
			t.Errorf("with the right secret: %s", got)
		}
		b.inOrder(t)
	})
}

// asking remembers with which credentials the server was asked.
type asking struct {
	*rotationtest.Issuer
	mu   sync.Mutex
	apps []rotation.Application
}

func (a *asking) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	a.mu.Lock()
	a.apps = append(a.apps, app)
	a.mu.Unlock()
	return a.Issuer.Redeem(ctx, app, grant)
}

func (a *asking) last() rotation.Application {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.apps[len(a.apps)-1]
}

// Many connections meet refused credentials; once those are replaced, each
// forced rotation works at once, as the command for it says.
func TestEveryConnectionRotatesAfterTheCredentialsAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		names := connectMany(t, b, 5)
		changed := app
		changed.ClientSecret = token.NewSecret("canary-reset")
		b.Issuer.Register(changed)
		b.operation(t).run(3*time.Hour + time.Minute)
		b.Applications.Set(changed)
		for _, c := range names {
			report, err := b.rotator().Rotate(t.Context(), c)
			must(t, err)
			if got := report.Connections[0]; got.Outcome != rotation.Rotated {
				t.Errorf("%s: %s, %s", c, got.Outcome, got.Detail)
			}
		}
	})
}

// The secret store refuses writes for a while right after a redeem. The old
// token is dead by then, so the new one is shown within seconds of the repair.
func TestANewTokenIsShownAsSoonAsTheSecretStoreTakesIt(t *testing.T) {
	const patience = 15 * time.Second
	for _, call := range []string{"secrets.Put", "secrets.Promote"} {
		for _, kind := range []rotationtest.Kind{rotationtest.Fail, rotationtest.Throttle, rotationtest.Deny} {
			for _, lasts := range []time.Duration{20 * time.Second, 3 * time.Minute, 10 * time.Minute} {
				t.Run(fmt.Sprintf("%s %s for %v", call, kind, lasts), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := newHarness(rotationtest.Personality{})
						b.connect(t)
						from := time.Now()
						o := b.operation(t)
						b.gate(sinceRedeem(lasts, rotationtest.Fault{Kind: kind}, call))
						o.run(time.Hour + 14*time.Minute)
						if gone := b.dead(t, acme, from); gone > lasts+patience {
							t.Errorf("readers had no live token for %v; writes were refused for %v", gone, lasts)
						}
						if outcomes := o.outcomes(acme); outcomes[rotation.Rotated] != 1 {
							t.Errorf("the run of the redeem did not publish: %v", outcomes)
						}
						b.presentedOnce(t)
						b.inOrder(t)
					})
				})
			}
		}
	}
}

// sinceRedeem is a gate that refuses calls for so long after the first answer.
func sinceRedeem(lasts time.Duration, fault rotationtest.Fault, calls ...string) rotationtest.Gate {
	var mu sync.Mutex
	var end time.Time
	return func(ctx context.Context, at rotationtest.Passage) rotationtest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if at.Call == "issuer.Redeem" && at.When == after && end.IsZero() {
			end = time.Now().Add(lasts)
		}
		return breakdown(end, fault, calls...)(ctx, at)
	}
}

// The wider kind: the run has no time left before the repair; the secret is new
// and cannot be created; the check before publishing cannot read.
func TestPublishingGoesOnWhateverKeepsItBack(t *testing.T) {
	t.Run("the run ends first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			b.connect(t)
			from := time.Now()
			o := b.operation(t)
			o.life = time.Minute
			const lasts = 3 * time.Minute
			b.gate(sinceRedeem(lasts, fail, "secrets.Put"))
			o.run(time.Hour + 14*time.Minute)
			if gone := b.dead(t, acme, from); gone > lasts+2*time.Minute {
				t.Errorf("readers had no live token for %v; writes were refused for %v", gone, lasts)
			}
			b.presentedOnce(t)
			b.inOrder(t)
		})
	})
	for _, call := range []string{"secrets.Create", "secrets.Current"} {
		for _, lasts := range []time.Duration{20 * time.Second, 3 * time.Minute} {
			t.Run(fmt.Sprintf("a first consent, %s fails for %v", call, lasts), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newHarness(rotationtest.Personality{})
					b.gate(sinceRedeem(lasts, fail, call))
					if result, err := b.consent(t.Context(), pat, rotation.Identity{Company: "42"}); result != rotation.Connected {
						t.Fatalf("the consent ended %s, %v", result, err)
					}
					b.operation(t).run(lasts + 15*time.Second)
					b.inOrder(t)
				})
			})
		}
	}
	t.Run("the check cannot read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{})
			b.connect(t)
			from := time.Now()
			o := b.operation(t)
			b.gate(sinceRedeem(3*time.Minute, fail, "secrets.Current"))
			o.run(time.Hour + 14*time.Minute)
			if gone := b.dead(t, acme, from); gone > 3*time.Minute+15*time.Second {
				t.Errorf("readers had no live token for %v; reads were refused for 3m", gone)
			}
			b.presentedOnce(t)
			b.inOrder(t)
		})
	})
}

// A connection that waits for the secret store does not delay another one.
func TestWaitingForTheSecretStoreHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.settings.Concurrency = 1
		names := connectMany(t, b, 3)
		time.Sleep(time.Hour)
		began := time.Now()
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.Connection == names[0] && at.Call == "secrets.Put" && time.Since(began) < 5*time.Minute {
				return fail
			}
			return rotationtest.Fault{}
		})
		ctx, cancel := context.WithTimeout(t.Context(), functionLife)
		defer cancel()
		report, err := b.rotator().Sweep(ctx)
		must(t, err)
		if n := report.Outcomes[rotation.Rotated]; n != len(names) {
			t.Errorf("outcomes %v, want all rotated", report.Outcomes)
		}
		for i, c := range names {
			gone, most := b.dead(t, c, began), 10*time.Second
			if i == 0 {
				most += 5 * time.Minute
			}
			if gone > most {
				t.Errorf("readers of %s had no live token for %v", c, gone)
			}
		}
		b.traceIfFailed(t)
	})
}
