package rotation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestADayOfHourlySweepsPresentsEachRefreshTokenOnce(t *testing.T) {
	for name, personality := range rotationtest.Personalities {
		if personality.NoRotation {
			continue // a server that gives no new refresh token has a test of its own
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(personality)
				b.connect(t)
				for hour := range 24 {
					time.Sleep(time.Hour)
					report := b.sweep(t)
					if report.Outcomes[rotation.Rotated] != 1 || report.Due != 1 {
						t.Fatalf("hour %d: %+v", hour, report)
					}
					if err := b.works(t.Context()); err != nil {
						t.Fatalf("hour %d: %v", hour, err)
					}
				}
				counts := b.presentations()
				for fp, n := range counts {
					if n != 1 {
						t.Errorf("refresh token %s was presented %d times", fp, n)
					}
				}
				if rec := b.record(t); len(counts) != 24 || rec.Generation != 24 {
					t.Errorf("%d tokens presented, generation %d; want 24", len(counts), rec.Generation)
				}
				if kinds := b.notices(); len(kinds) != 0 {
					t.Errorf("a faultless day gave notices: %v", kinds)
				}
			})
		})
	}
}

func TestTwentySweepsAtOnceRedeemOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		// The answer takes a while, so that all twenty meet.
		slow := rotationtest.Always("issuer.Redeem", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Slow, For: 3 * time.Second})
		// The index lags, so that all twenty find it due.
		b.gate(rotationtest.Gates(slow, rotationtest.Always("ledger.Due", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Stale})))
		outcomes := map[rotation.Outcome]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				report, err := b.rotator().Sweep(t.Context())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for outcome, n := range report.Outcomes {
					outcomes[outcome] += n
				}
			})
		}
		wg.Wait()
		if outcomes[rotation.Rotated] != 1 || outcomes[rotation.Busy]+outcomes[rotation.Fresh] != 19 {
			t.Errorf("outcomes %v, want 1 rotated and 19 busy or fresh", outcomes)
		}
		for fp, n := range b.presentations() {
			if n != 1 {
				t.Errorf("refresh token %s was presented %d times", fp, n)
			}
		}
		if err := b.works(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestASweepWithNothingDueReadsOnceAndWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.connect(t)
		var calls []string
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.When == rotationtest.Before {
				calls = append(calls, at.Call)
			}
			return rotationtest.Fault{}
		})
		if report := b.sweep(t); report.Due != 0 || !slices.Equal(calls, []string{"ledger.Due"}) {
			t.Errorf("due %d, calls %v; want one ledger.Due", report.Due, calls)
		}
	})
}

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
		{"invalid_client", before(rotationtest.Deny), rotation.ConfigError, 2 * time.Minute, rotation.Active, []string{rotation.NoticeConfigError}},
		{"503", before(rotationtest.Fail), rotation.Unknown, 4 * time.Minute, rotation.Active, []string{rotation.NoticeUnknown}},
		{"the answer is lost", fault{rotationtest.After, rotationtest.Fault{Kind: rotationtest.Fail}}, rotation.Unknown, 4 * time.Minute,
			rotation.NeedsConsent, []string{rotation.NoticeUnknown, rotation.NoticeNeedsConsent}},
		{"half the answer", fault{rotationtest.After, rotationtest.Fault{Kind: rotationtest.Cut}}, rotation.Unknown, 4 * time.Minute,
			rotation.NeedsConsent, []string{rotation.NoticeRejected, rotation.NoticeNeedsConsent}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(rotationtest.Personality{})
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
		b := newBench(rotationtest.Personality{Overlap: true})
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

func TestAnAnswerThatTheLedgerDoesNotTakeIsKeptInTheVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
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
		b := newBench(rotationtest.Personality{})
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

func TestRefusedCredentialsStopTheAppForTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
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

// connectMany connects n connections and returns their names.
func connectMany(t *testing.T, b *bench, n int) []token.Connection {
	t.Helper()
	var names []token.Connection
	for i := range n {
		c := token.Connection{Environment: "sandbox", Name: "c" + string(rune('a'+i))}
		rec, err := rotation.Register(t.Context(), b.Ledger, b.Vault, b.settings.Stack, c)
		if err != nil {
			t.Fatal(err)
		}
		exchange, err := b.consents().Prepare(t.Context(), c, rec.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		code := b.Issuer.Authorize(pat, redirectURI, "")
		if result, err := exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI}); result != rotation.Connected {
			t.Fatalf("consent of %s: %s, %v", c, result, err)
		}
		names = append(names, c)
	}
	b.deliver(t.Context())
	return names
}

func TestAServerThatKeepsTheRefreshTokenIsNeverTakenForAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{NoRotation: true})
		b.connect(t)
		time.Sleep(time.Hour)
		b.sweep(t)
		rec := b.record(t)
		if rec.Status != rotation.Active || rec.Generation != 0 || rec.Attempt == nil {
			t.Errorf("an answer without a refresh token led to %+v", rec)
		}
		if kinds := b.notices(); !slices.Contains(kinds, rotation.NoticeRejected) {
			t.Errorf("nobody was told: %v", kinds)
		}
	})
}

func TestConsentIsCheckedAgainstWhatWasAskedFor(t *testing.T) {
	other := rotation.Identity{ClientID: app.ClientID, ResourceOwner: "8", Login: "sam@example.com", Company: "42"}
	tests := []struct {
		name        string
		who, expect rotation.Identity
		connected   bool // before, by pat
		want        rotation.ConsentResult
	}{
		{"anybody", pat, rotation.Identity{}, false, rotation.Connected},
		{"as invited", pat, rotation.Identity{Login: "pat@example.com", Company: "42", ResourceOwner: "7"}, false, rotation.Connected},
		{"other login", other, rotation.Identity{Login: "pat@example.com"}, false, rotation.WrongIdentity},
		{"other user", other, rotation.Identity{ResourceOwner: "7"}, false, rotation.WrongIdentity},
		{"other company", pat, rotation.Identity{Company: "43"}, false, rotation.WrongIdentity},
		{"other client", rotation.Identity{ClientID: "elsewhere", ResourceOwner: "7"}, rotation.Identity{}, false, rotation.WrongIdentity},
		{"again", pat, rotation.Identity{Company: "42"}, true, rotation.Connected},
		{"again by another user", other, rotation.Identity{Company: "42"}, true, rotation.WrongIdentity},
		{"handed over", other, rotation.Identity{Company: "42", Repin: true}, true, rotation.Connected},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(rotationtest.Personality{})
				if test.connected {
					b.connect(t)
				}
				before := b.record(t)
				result, err := b.consent(t.Context(), test.who, test.expect)
				if result != test.want || (err == nil) != (result == rotation.Connected) {
					t.Errorf("%s, %v; want %s", result, err, test.want)
				}
				b.deliver(t.Context())
				time.Sleep(time.Hour)
				b.sweep(t)
				after := b.record(t)
				if test.want == rotation.WrongIdentity {
					if after.Epoch != before.Epoch {
						t.Errorf("the epoch went from %d to %d", before.Epoch, after.Epoch)
					}
				} else if after.Epoch != before.Epoch+1 {
					t.Errorf("the epoch went from %d to %d", before.Epoch, after.Epoch)
				}
				if after.Status == rotation.Active {
					if err := b.works(t.Context()); err != nil {
						t.Errorf("%v\n%s", err, b.Journal.String())
					}
				}
				if live := b.livePairs(t); live > 1 || after.Status != rotation.Active && live > 0 {
					t.Errorf("%d pairs are alive at the issuer", live)
				}
			})
		})
	}
}

// livePairs counts the pairs that the issuer would still redeem.
func (b *bench) livePairs(t *testing.T) int {
	t.Helper()
	live := 0
	for _, e := range b.Journal.Entries() {
		if g, ok := e.Effect.(rotationtest.Granted); ok && b.Issuer.Takes(g.Pair) {
			live++
		}
	}
	return live
}

func TestDisconnectRevokesEverything(t *testing.T) {
	for name, personality := range rotationtest.Personalities {
		if personality.NoRotation {
			continue
		}
		for _, age := range []time.Duration{time.Minute, 3 * time.Hour} { // with a live, and an expired access token
			t.Run(name+" after "+age.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBench(personality)
					b.connect(t)
					time.Sleep(age)
					report, err := b.rotator().Disconnect(t.Context(), acme)
					if err != nil || report.Connections[0].Outcome != rotation.NotFound {
						t.Fatalf("%+v, %v", report, err)
					}
					time.Sleep(time.Minute)
					if live := b.livePairs(t); live != 0 {
						t.Errorf("%d pairs are alive after disconnecting\n%s", live, b.Journal.String())
					}
					if got := b.rotate(t); got.Outcome != rotation.NotFound {
						t.Errorf("rotating it afterwards: %s", got.Outcome)
					}
				})
			})
		}
	}
}

func TestImportedTokenIsRotatedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		code := b.Issuer.Authorize(pat, redirectURI, "")
		answer := b.Issuer.Redeem(t.Context(), app, rotation.Grant{Code: code, RedirectURI: redirectURI})
		elsewhere := b.Issuer.Parse(answer.Body).Pair
		if _, err := rotation.Register(t.Context(), b.Ledger, b.Vault, "bench", acme); err != nil {
			t.Fatal(err)
		}
		if err := b.consents().Import(t.Context(), acme, elsewhere.RefreshToken, "42"); err != nil {
			t.Fatal(err)
		}
		b.deliver(t.Context())
		if report := b.sweep(t); report.Outcomes[rotation.Rotated] != 1 {
			t.Fatalf("%+v\n%s", report, b.Journal.String())
		}
		if err := b.works(t.Context()); err != nil {
			t.Error(err)
		}
		if pin := b.record(t).Pin; pin == nil || pin.ResourceOwner != pat.ResourceOwner || pin.Company != "42" {
			t.Errorf("pin %+v", pin)
		}
		if imported := b.record(t).Imported; !slices.Equal(imported, []token.Fingerprint{elsewhere.RefreshToken.Fingerprint()}) {
			t.Errorf("imported %v", imported)
		}
		for _, end := range []func(){func() {}, func() { _, _ = b.rotator().Disconnect(t.Context(), acme) }} { // active, and pinned to a user
			end()
			before := b.record(t)
			if err := b.consents().Import(t.Context(), acme, elsewhere.RefreshToken, "42"); !errors.Is(err, rotation.ErrConnected) {
				t.Errorf("importing over a %s connection: %v", before.Status, err)
			}
			if after := b.record(t); after.Revision != before.Revision {
				t.Errorf("the refused import changed %+v", after)
			}
		}
	})
}

func TestTheVaultIsPutRight(t *testing.T) {
	edited := token.NewSecret(`{"hello":"operator"}`)
	tests := []struct {
		name    string
		disturb func(t *testing.T, b *bench)
		outcome rotation.Outcome
		notices []string
	}{
		{"edited by hand", func(t *testing.T, b *bench) { must(t, b.Vault.Edit(t.Context(), acme, edited)) },
			rotation.Rotated, []string{rotation.NoticeDrift}},
		{"rolled back", func(t *testing.T, b *bench) {
			must(t, b.Vault.RollBack(t.Context(), acme, b.Vault.Label(acme, "AWSPREVIOUS")))
		},
			rotation.Rotated, []string{rotation.NoticeDrift}},
		{"deleted for good", func(_ *testing.T, b *bench) { b.Vault.Purge(acme) }, rotation.Rotated, []string{rotation.NoticeDrift}},
		{"scheduled for deletion", func(_ *testing.T, b *bench) { b.Vault.Delete(acme) }, rotation.ConfigError, []string{rotation.NoticeConfigError}},
		{"of another stack", func(t *testing.T, b *bench) {
			doc, err := b.read(t.Context())
			must(t, err)
			doc.Stack = "other"
			value, err := doc.Encode()
			must(t, err)
			must(t, b.Vault.Edit(t.Context(), acme, value))
		}, rotation.ConfigError, []string{rotation.NoticeConfigError}},
		{"a forged later generation", func(t *testing.T, b *bench) {
			doc, err := b.read(t.Context())
			must(t, err)
			doc.Generation += 5
			value, err := doc.Encode()
			must(t, err)
			must(t, b.Vault.Edit(t.Context(), acme, value))
		}, rotation.Rotated, []string{rotation.NoticeDrift}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(rotationtest.Personality{})
				b.connect(t)
				b.rotate(t)
				test.disturb(t, b)
				time.Sleep(time.Hour)
				if report := b.sweep(t); report.Outcomes[test.outcome] != 1 {
					t.Errorf("outcomes %v, want %s: %+v\n%s", report.Outcomes, test.outcome, report, b.Journal.String())
				}
				if test.outcome == rotation.Rotated {
					if err := b.works(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if kinds := b.notices(); !slices.Equal(kinds, test.notices) {
					t.Errorf("notices %v, want %v", kinds, test.notices)
				}
				for fp, n := range b.presentations() {
					if n != 1 {
						t.Errorf("refresh token %s was presented %d times", fp, n)
					}
				}
			})
		})
	}
}

func TestARestoredLedgerTakesOverWhatTheVaultShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{KillFamily: true})
		b.connect(t)
		restore := b.Ledger.Backup()
		for range 3 {
			time.Sleep(time.Hour)
			b.sweep(t)
		}
		restore()
		report := b.sweep(t)
		if report.Outcomes[rotation.Recovered]+report.Outcomes[rotation.Rotated] != 1 {
			t.Errorf("%+v\n%s", report, b.Journal.String())
		}
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal.String())
		}
		if rec := b.record(t); rec.Generation < 3 {
			t.Errorf("generation %d after taking over, want 3 or more", rec.Generation)
		}
	})
}

func TestAConsentThatCrashedAfterSavingIsFinishedByASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.gate(rotationtest.Nth(1, "ledger.SaveMint", rotationtest.After, rotationtest.Fault{Kind: rotationtest.Crash}))
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = b.consent(t.Context(), pat, rotation.Identity{Login: pat.Login})
		}()
		<-done
		time.Sleep(b.settings.Lease + b.settings.Quiet)
		if report := b.sweep(t); report.Outcomes[rotation.Published] != 1 {
			t.Errorf("%+v\n%s", report, b.Journal.String())
		}
		if err := b.works(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestALateConsentCannotWin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.connect(t)
		slow, err := b.consents().Prepare(t.Context(), acme, 1)
		must(t, err)
		if result, err := b.consent(t.Context(), pat, rotation.Identity{}); result != rotation.Connected {
			t.Fatalf("%s, %v", result, err)
		}
		code := b.Issuer.Authorize(pat, redirectURI, "")
		result, err := slow.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI})
		if result != rotation.Superseded || !errors.Is(err, rotation.ErrSuperseded) {
			t.Errorf("%s, %v; want superseded", result, err)
		}
		b.deliver(t.Context())
		time.Sleep(time.Hour)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal.String())
		}
		if live := b.livePairs(t); live != 1 {
			t.Errorf("%d pairs are alive, want the second consent's only", live)
		}
		if _, err := b.consents().Prepare(t.Context(), acme, 1); !errors.Is(err, rotation.ErrSuperseded) {
			t.Errorf("preparing for a past epoch: %v", err)
		}
	})
}

func TestQuarantineWaitsForAPerson(t *testing.T) {
	for _, release := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(rotationtest.Personality{Overlap: true})
			b.connect(t)
			time.Sleep(time.Hour)
			two := contradicting(b.Issuer)
			r := b.rotatorWith(two)
			report, err := r.Sweep(t.Context())
			must(t, err)
			if report.Outcomes[rotation.Held] != 1 {
				t.Fatalf("%+v", report)
			}
			time.Sleep(3 * time.Hour)
			presented := len(b.presentations())
			if got := b.rotate(t); got.Outcome != rotation.Held || len(b.presentations()) != presented || !b.record(t).Held {
				t.Fatalf("a held connection answered %s", got.Outcome)
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
			if b.record(t).Held {
				t.Errorf("release %t: still held", release)
			}
		})
	}
}

func TestARunWithoutTimeDefersAndAsksForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		report, err := b.rotator().Sweep(ctx)
		must(t, err)
		if report.Outcomes[rotation.Deferred] != 1 || len(b.presentations()) != 0 {
			t.Errorf("%+v", report)
		}
		time.Sleep(time.Minute)
		b.deliver(t.Context())
		if err := b.works(t.Context()); err != nil || b.record(t).Generation != 1 {
			t.Errorf("the follow-up sweep did not do it: %v", err)
		}
	})
}

func TestThePutBudgetIsCheckedBeforeATokenIsSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		b.settings.PutsPerDay = 3
		b.connect(t)
		for range 2 {
			if got := b.rotate(t); got.Outcome != rotation.Rotated {
				t.Fatalf("%+v", got)
			}
		}
		presented := len(b.presentations())
		if got := b.rotate(t); got.Outcome != rotation.Deferred || len(b.presentations()) != presented {
			t.Errorf("%+v", got)
		}
		time.Sleep(24 * time.Hour)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil || b.record(t).Generation != 3 {
			t.Errorf("a day later: %v, generation %d", err, b.record(t).Generation)
		}
	})
}

func TestRequestsAreCheckedBeforeAnythingIsTouched(t *testing.T) {
	b := newBench(rotationtest.Personality{})
	for _, request := range []rotation.Request{{}, {Op: "delete"}, {Op: "rotate"}, {Op: "rotate", Connection: "acme"}, {Op: "rotate", Connection: "Sandbox/acme"},
		{Op: "ensure", Connection: "sandbox/acme"}, {Op: "sweep", Connection: "sandbox/acme"}, {Op: "publish", Connection: "sandbox/../x"}} {
		if _, err := b.rotator().Do(t.Context(), request); !errors.Is(err, rotation.ErrBadRequest) {
			t.Errorf("%+v: %v", request, err)
		}
	}
	report, err := b.rotator().Do(t.Context(), rotation.Request{Op: "rotate", Connection: "sandbox/nobody"})
	if err != nil || report.Outcomes[rotation.NotFound] != 1 {
		t.Errorf("unknown connection: %+v, %v", report, err)
	}
	if entries := b.Journal.Entries(); len(entries) != 0 {
		t.Errorf("something was touched: %v", b.Journal.String())
	}
}

func TestAFaultOfOneConnectionStaysWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(rotationtest.Personality{})
		names := connectMany(t, b, 4)
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.Connection == names[1] {
				if at.Call == "ledger.Write" {
					panic("a poisoned row")
				}
			}
			return rotationtest.Fault{}
		})
		time.Sleep(time.Hour)
		report := b.sweep(t)
		if report.Outcomes[rotation.Rotated] != 3 || report.Outcomes[rotation.Failed] != 1 {
			t.Errorf("%v", report.Outcomes)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
