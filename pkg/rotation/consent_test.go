package rotation_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestConsentIsCheckedAgainstWhatWasAskedFor(t *testing.T) {
	other := rotation.Identity{ClientID: app.ClientID, ResourceOwner: "8", Login: "sam@example.com", Company: "42"}
	tests := []struct {
		name        string
		who, expect rotation.Identity
		connected   bool // before, by pat
		want        rotation.ConsentResult
	}{
		{"anybody", pat, rotation.Identity{}, false, rotation.Connected},
		{"as invited", pat, rotation.Identity{Login: "pat@example.com", Company: "42", ResourceOwner: "7"}, false,
			rotation.Connected},
		{"other login", other, rotation.Identity{Login: "pat@example.com"}, false, rotation.WrongIdentity},
		{"other user", other, rotation.Identity{ResourceOwner: "7"}, false, rotation.WrongIdentity},
		{"other company", pat, rotation.Identity{Company: "43"}, false, rotation.WrongIdentity},
		{"other client", rotation.Identity{ClientID: "elsewhere", ResourceOwner: "7"}, rotation.Identity{}, false,
			rotation.WrongIdentity},
		{"again", pat, rotation.Identity{Company: "42"}, true, rotation.Connected},
		{"again by another user", other, rotation.Identity{Company: "42"}, true, rotation.WrongIdentity},
		{"handed over", other, rotation.Identity{Company: "42", Repin: true}, true, rotation.Connected},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
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

// A pending row does not outlive the invitations that were revoked. No other row changes.
func TestPendingRowEndsWithItsInvitationsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		now, end := time.Now(), time.Now().AddDate(0, 0, 3)
		register := func(until time.Time) {
			_, err := rotation.RegisterUntil(t.Context(), b.Ledger, b.SecretStore, "harness", acme, until)
			must(t, err)
		}
		revoke := func(left time.Time, want time.Time) {
			t.Helper()
			must(t, rotation.Uninvited(t.Context(), b.Ledger, acme, now, func(context.Context) (time.Time, error) {
				return left, nil
			}))
			if rec := b.record(t); !rec.InvitedUntil.Equal(want) {
				t.Errorf("invited until %v, want %v", rec.InvitedUntil, want)
			}
		}
		register(end)
		revoke(end, end)
		revoke(end.Add(-time.Hour), end.Add(-time.Hour))
		revoke(time.Time{}, now)
		if !b.record(t).Expired(now) {
			t.Error("it is still pending")
		}
		register(end) // it is invited again
		if b.record(t).Expired(now) {
			t.Error("an invitation after that has no effect")
		}
		if result, err := b.consent(t.Context(), pat, rotation.Identity{}); err != nil || result != rotation.Connected {
			t.Fatal(result, err)
		}
		before := b.record(t)
		revoke(time.Time{}, before.InvitedUntil)
	})
}

// A pending row ends with the last invitation, however often and in which order people are
// invited. What a consent makes due does not expire meanwhile.
func TestPendingRowEndsWithItsLastInvitation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		begun := time.Now()
		for _, days := range []int{3, 7, 1} {
			if _, err := rotation.RegisterUntil(t.Context(), b.Ledger, b.SecretStore, "harness", acme,
				begun.AddDate(0, 0, days)); err != nil {
				t.Fatal(err)
			}
		}
		rec := b.record(t)
		end := begun.AddDate(0, 0, 7)
		if !rec.InvitedUntil.Equal(end) || rec.Expired(end.Add(-1)) || !rec.Expired(end) ||
			!rec.DeleteAt().After(end.Add(time.Hour)) {
			t.Errorf("invited until %v, deleted at %v; want the end %v", rec.InvitedUntil, rec.DeleteAt(), end)
		}
		if _, err := b.consents().Prepare(t.Context(), acme, rec.Epoch); err != nil {
			t.Fatal(err)
		}
		if rec := b.record(t); rec.Expired(end.AddDate(1, 0, 0)) || !rec.DeleteAt().IsZero() {
			t.Errorf("with a consent under way it is deleted at %v", rec.DeleteAt())
		}
		for range 3 { // nobody finished the consent
			time.Sleep(time.Hour)
			b.sweep(t)
		}
		if rec := b.record(t); rec.DeleteAt().IsZero() {
			t.Errorf("the row stays: %+v", rec)
		}
		if result, err := b.consent(t.Context(), pat, rotation.Identity{}); err != nil || result != rotation.Connected {
			t.Fatal(result, err)
		}
		if rec := b.record(t); rec.Expired(end.AddDate(1, 0, 0)) || !rec.DeleteAt().IsZero() {
			t.Errorf("a connected row is deleted at %v", rec.DeleteAt())
		}
	})
}

func TestImportedTokenIsRotatedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		code := b.Issuer.Authorize(pat, redirectURI, "")
		answer := b.Issuer.Redeem(t.Context(), app, rotation.Grant{Code: code, RedirectURI: redirectURI})
		elsewhere := b.Issuer.Parse(answer.Body).Pair
		if _, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, "harness", acme); err != nil {
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
		if kinds := b.notices(); len(kinds) > 0 {
			t.Errorf("people were notified of %v", kinds)
		}
		if pin := b.record(t).Pin; pin == nil || pin.ResourceOwner != pat.ResourceOwner || pin.Company != "42" {
			t.Errorf("pin %+v", pin)
		}
		if imported := b.record(t).Imported; !slices.Equal(imported,
			[]token.Fingerprint{elsewhere.RefreshToken.Fingerprint()}) {
			t.Errorf("imported %v", imported)
		}
		// active, and pinned to a user
		for _, end := range []func(){func() {}, func() { _, _ = b.rotator().Disconnect(t.Context(), acme) }} {
			end()
			before := b.record(t)
			if err := b.consents().Import(t.Context(), acme, elsewhere.RefreshToken, "42"); !errors.Is(err,
				rotation.ErrConnected) {
				t.Errorf("importing over a %s connection: %v", before.Status, err)
			}
			if after := b.record(t); after.Revision != before.Revision {
				t.Errorf("the refused import changed %+v", after)
			}
		}
	})
}

func TestAConsentThatCrashedAfterSavingIsFinishedByASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.gate(rotationtest.Nth(1, "ledger.SaveResponse", rotationtest.After, rotationtest.Fault{Kind: rotationtest.Crash}))
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
		b := newHarness(rotationtest.Personality{})
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

func TestAConsentSupersededByADisconnectIsRevoked(t *testing.T) {
	for _, queue := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newHarness(rotationtest.Personality{Lifetime: 100 * time.Hour})
			b.connect(t)
			exchange, err := b.consents().Prepare(t.Context(), acme, 1)
			must(t, err)
			_, err = b.rotator().Disconnect(t.Context(), acme)
			must(t, err)
			code := b.Issuer.Authorize(pat, redirectURI, "")
			if result, _ := exchange.Redeem(t.Context(), rotation.Consent{Code: code,
				RedirectURI: redirectURI}); result != rotation.Superseded {
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
		b := newHarness(rotationtest.Personality{})
		_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, "harness", acme)
		must(t, err)
		exchange, err := b.consents().Prepare(t.Context(), acme, 0)
		must(t, err)
		for range 4 { // sweeps that find nothing to do yet
			time.Sleep(time.Minute)
			b.sweep(t)
		}
		b.gate(rotationtest.Always("issuer.Identify", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Fail}))
		code := b.Issuer.Authorize(pat, redirectURI, "")
		if result, _ := exchange.Redeem(t.Context(), rotation.Consent{Code: code,
			RedirectURI: redirectURI}); result != rotation.Verifying {
			t.Fatalf("the consent ended %s", result)
		}
		b.gate(nil)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal)
		}
	})
}

// A sweep during one callback must not clear the search time of another callback's pair.
func TestASavedConsentIsFoundAfterOtherRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, "harness", acme)
		must(t, err)
		_, err = b.consents().Prepare(t.Context(), acme, 0) // and never comes back with a code
		must(t, err)
		time.Sleep(2 * time.Minute)
		exchange, err := b.consents().Prepare(t.Context(), acme, 0)
		must(t, err)
		time.Sleep(time.Minute)
		b.sweep(t)
		b.gate(rotationtest.Nth(1, "ledger.SaveResponse", rotationtest.After, rotationtest.Fault{Kind: rotationtest.Crash}))
		code := b.Issuer.Authorize(pat, redirectURI, "")
		died := make(chan struct{})
		go func() {
			defer close(died)
			_, _ = exchange.Redeem(t.Context(), rotation.Consent{Code: code, RedirectURI: redirectURI})
		}()
		<-died
		b.gate(nil)
		time.Sleep(2 * time.Minute)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal)
		}
	})
}

func TestAContradictoryConsentAsksForANewInvitation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, "harness", acme)
		must(t, err)
		consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: b.Ledger, Sealer: b.Sealer,
			Applications: b.Applications,
			Issuer:       withSeveralTokens(b.Issuer), Notifier: b.Notifier, Settings: b.settings})
		must(t, err)
		exchange, err := consents.Prepare(t.Context(), acme, 0)
		must(t, err)
		code := b.Issuer.Authorize(pat, redirectURI, "")
		if result, _ := exchange.Redeem(t.Context(), rotation.Consent{Code: code,
			RedirectURI: redirectURI}); result != rotation.Lost {
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

// An answer without an access token says nothing about the owner of the consent. Its
// refresh token gives another one, and the owner is checked with that.
func TestAConsentWithoutAnAccessTokenIsRefreshedAndChecked(t *testing.T) {
	for _, c := range []struct {
		who    rotation.Identity
		status rotation.Status
		live   int
	}{{pat, rotation.Active, 1}, {sam, rotation.Pending, 0}} {
		t.Run(c.who.Login, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, "harness", acme)
				must(t, err)
				consents := b.consentsBut(func(cfg *rotation.ConsentsConfig) { cfg.Issuer = accessless{b.Issuer} })
				exchange, err := consents.Prepare(t.Context(), acme, 0)
				must(t, err)
				code := b.Issuer.Authorize(c.who, redirectURI, "")
				consent := rotation.Consent{Code: code, RedirectURI: redirectURI, Expect: rotation.Identity{Login: pat.Login}}
				result, _ := exchange.Redeem(t.Context(), consent)
				if rec := b.record(t); result != rotation.Verifying || rec.Status != rotation.Pending {
					t.Errorf("the consent ended %s, status %s", result, rec.Status)
				}
				b.deliver(t.Context())
				b.sweep(t)
				if rec := b.record(t); rec.Status != c.status || b.livePairs(t) != c.live {
					t.Errorf("status %s, %d pairs alive; want %s and %d", rec.Status, b.livePairs(t), c.status, c.live)
				}
			})
		})
	}
}

// accessless answers with a refresh token and no access token.
type accessless struct{ *rotationtest.Issuer }

func (i accessless) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := i.Issuer.Redeem(ctx, app, grant)
	answer.Body = token.NewSecret(`{"refresh_token":"` + i.Issuer.Parse(answer.Body).Pair.RefreshToken.Reveal() + `"`)
	return answer
}
