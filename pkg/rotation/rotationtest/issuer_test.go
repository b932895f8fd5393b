package rotationtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// client is a well-behaved client.
type client struct {
	t *testing.T
	*Issuer
}

func newClient(t *testing.T, p Personality) *client {
	i := &Issuer{Personality: p, Journal: &Journal{}}
	i.Register(Sandbox)
	return &client{t, i}
}

func (c *client) redeem(grant rotation.Grant) (rotation.Class, token.Pair) {
	answer := c.Redeem(c.t.Context(), Sandbox, grant)
	return answer.Class, c.Parse(answer.Body).Pair
}

func (c *client) consent() token.Pair {
	c.t.Helper()
	code := c.Authorize(rotation.Identity{ResourceOwner: "12", Company: "34"}, Sandbox.RedirectURI, "")
	class, pair := c.redeem(rotation.Grant{Code: code, RedirectURI: Sandbox.RedirectURI})
	if class != rotation.Captured || pair.RefreshToken.IsZero() {
		c.t.Fatalf("exchanging a code: %s", class)
	}
	return pair
}

func (c *client) refresh(p token.Pair) token.Pair {
	c.t.Helper()
	class, next := c.redeem(rotation.Grant{RefreshToken: p.RefreshToken})
	if class != rotation.Captured {
		c.t.Fatalf("refreshing: %s", class)
	}
	return next
}

func (c *client) refused(p token.Pair) {
	c.t.Helper()
	if class, _ := c.redeem(rotation.Grant{RefreshToken: p.RefreshToken}); class != rotation.Refused {
		c.t.Errorf("a dead refresh token was answered with %s", class)
	}
}

// alive says which halves of a pair work, without redeeming it; using
// its access token is part of the question.
func (c *client) alive(what string, p token.Pair, access, refresh bool) {
	c.t.Helper()
	if got := c.Takes(p.RefreshToken.Fingerprint()); got != refresh {
		c.t.Errorf("%s: the refresh token is alive: %t, want %t", what, got, refresh)
	}
	if got := c.Accepts(c.t.Context(), p.AccessToken); got != access {
		c.t.Errorf("%s: the access token is alive: %t, want %t", what, got, access)
	}
}

func TestOldPairEndsAtOnce(t *testing.T) {
	c := newClient(t, Personality{})
	first := c.consent()
	second := c.refresh(first)
	c.alive("the old pair", first, false, false)
	c.refused(first)
	c.alive("the new pair after the reuse", second, true, true)
}

func TestOverlap(t *testing.T) {
	c := newClient(t, Personality{Overlap: true})
	first := c.consent()
	second := c.refresh(first)
	c.alive("the old pair before the new one is used", first, true, true)
	sibling := c.refresh(first)
	c.alive("the new pair", second, true, true)
	c.alive("the old pair after that", first, false, false)
	c.refused(first)
	c.alive("the sibling", sibling, true, true)

	// Revoking an unused successor revives its parent; here, it never ended.
	third := c.refresh(second)
	if err := c.Revoke(t.Context(), Sandbox, third.AccessToken); err != nil {
		t.Fatal(err)
	}
	c.alive("the parent of a revoked successor", second, true, true)
	c.alive("the revoked pair", third, false, false)
}

func TestOverlapEndsEvenByALateUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Personality{Overlap: true})
		first := c.consent()
		second := c.refresh(first)
		time.Sleep(2 * time.Hour)
		c.alive("the new pair after its access token expired", second, false, true)
		c.alive("the old pair", first, false, false)
	})
}

func TestGraceAndFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Personality{Grace: 10 * time.Second, KillFamily: true})
		other := c.consent()
		first := c.consent()
		second := c.refresh(first)
		time.Sleep(9 * time.Second)
		third := c.refresh(first)
		time.Sleep(2 * time.Second)
		c.alive("the second pair", second, true, true)
		c.alive("the first pair after the grace", first, false, false)
		c.refused(first)
		c.alive("the second pair after a reuse", second, false, false)
		c.alive("the third pair after a reuse", third, false, false)
		c.alive("the pair of another consent", other, true, true)
	})
}

func TestACodeThatIsUsedTwiceEndsTheFamily(t *testing.T) {
	c := newClient(t, Personality{KillFamily: true})
	code := rotation.Grant{Code: c.Authorize(rotation.Identity{}, Sandbox.RedirectURI, ""),
		RedirectURI: Sandbox.RedirectURI}
	_, first := c.redeem(code)
	second := c.refresh(first)
	if class, _ := c.redeem(code); class != rotation.Refused {
		t.Errorf("a used code was answered with %s", class)
	}
	c.alive("its successor", second, false, false)
}

func TestAWithdrawalEndsSiblingsToo(t *testing.T) {
	c := newClient(t, Personality{Overlap: true})
	first, other := c.consent(), c.consent()
	second, sibling := c.refresh(first), c.refresh(first)
	c.Withdraw(t.Context(), second.AccessToken)
	for _, p := range []token.Pair{first, second, sibling} {
		c.alive("a pair of the consent", p, false, false)
	}
	c.alive("the pair of another consent", other, true, true)
	c.Wipe(t.Context())
	c.alive("a pair after everything was wiped", other, false, false)
}

func TestNoRotation(t *testing.T) {
	c := newClient(t, Personality{NoRotation: true})
	first := c.consent()
	answer := c.Redeem(t.Context(), Sandbox, rotation.Grant{RefreshToken: first.RefreshToken})
	if answer.Class != rotation.Captured || c.Parse(answer.Body).Verdict != rotation.AccessOnly {
		t.Errorf("got %s and %s, want an answer without a refresh token", answer.Class, c.Parse(answer.Body).Verdict)
	}
	c.alive("the pair", first, true, true)
}

func TestAServerClockThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Personality{Behind: time.Hour})
		if at := c.consent().CreatedAt; !at.Equal(time.Now().Add(-time.Hour)) {
			t.Errorf("it says that it is %v", at)
		}
	})
}

func TestExpiredPairsAreNotRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Personality{RevokesOnlyFresh: true, Lifetime: time.Minute})
		p := c.consent()
		time.Sleep(time.Hour)
		if err := c.Revoke(t.Context(), Sandbox, p.RefreshToken); err != nil {
			t.Fatal(err)
		}
		c.alive("the pair", p, false, true)
	})
}

func TestCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Personality{})
		verifier := token.NewSecret("verifier")
		owner := rotation.Identity{ResourceOwner: "12", Company: "34"}
		for _, test := range []struct {
			name  string
			grant rotation.Grant
			wait  time.Duration
			want  rotation.Class
		}{
			{"right", rotation.Grant{RedirectURI: Sandbox.RedirectURI, Verifier: verifier}, 0, rotation.Captured},
			{"another redirect URI", rotation.Grant{RedirectURI: "https://example.com/", Verifier: verifier}, 0,
				rotation.Refused},
			{"another verifier", rotation.Grant{RedirectURI: Sandbox.RedirectURI, Verifier: token.NewSecret("other")}, 0,
				rotation.Refused},
			{"too late", rotation.Grant{RedirectURI: Sandbox.RedirectURI, Verifier: verifier}, 11 * time.Minute,
				rotation.Refused},
		} {
			test.grant.Code = c.Authorize(owner, Sandbox.RedirectURI, challengeOf(verifier))
			time.Sleep(test.wait)
			class, pair := c.redeem(test.grant)
			if class != test.want {
				t.Errorf("%s: %s", test.name, class)
			}
			if class != rotation.Captured {
				continue
			}
			if class, _ := c.redeem(test.grant); class != rotation.Refused {
				t.Errorf("a used code was answered with %s", class)
			}
			if got, err := c.Identify(t.Context(), Sandbox, pair.AccessToken, "34"); err != nil || got != owner {
				t.Errorf("the owner is %+v, %v", got, err)
			}
			if got, _ := c.Identify(t.Context(), Sandbox, pair.AccessToken, "35"); got.Company != "" {
				t.Errorf("the token may act in a company that is not its owner's")
			}
		}
		if _, err := c.Identify(t.Context(), Sandbox, token.NewSecret("unknown"), ""); !errors.Is(err,
			rotation.ErrTokenRefused) {
			t.Errorf("an unknown access token: %v", err)
		}
	})
}

func TestWrongClient(t *testing.T) {
	c := newClient(t, Personality{})
	p := c.consent()
	app := Sandbox
	app.ClientSecret = token.NewSecret("other")
	answer := c.Redeem(t.Context(), app, rotation.Grant{RefreshToken: p.RefreshToken})
	if answer.Class != rotation.ClientFault {
		t.Errorf("got %s", answer.Class)
	}
	if err := c.Revoke(t.Context(), app, p.RefreshToken); err == nil {
		t.Error("another client revoked the pair")
	}
	c.alive("the pair", p, true, true)
}

// The answer that a client reports for each fault, and whether the token was spent.
func TestAnswersToFaults(t *testing.T) {
	for _, test := range []struct {
		when  Moment
		fault Fault
		class rotation.Class
		spent bool
	}{
		{Before, Fault{}, rotation.Captured, true},
		{Before, Fault{Kind: Fail}, rotation.UnknownResult, false},
		{Before, Fault{Kind: Throttle}, rotation.RateLimited, false},
		{Before, Fault{Kind: Deny}, rotation.ClientFault, false},
		{Before, Fault{Kind: Unsent}, rotation.NotSent, false},
		{Before, Fault{Kind: Freeze, For: time.Hour}, rotation.NotSent, false},
		{Before, Fault{Kind: Slow, For: time.Second}, rotation.Captured, true},
		{Before, Fault{Kind: Slow, For: time.Minute}, rotation.UnknownResult, true},
		{Before, Fault{Kind: Late, For: time.Minute}, rotation.UnknownResult, true},
		{After, Fault{Kind: Fail}, rotation.UnknownResult, true},
		{After, Fault{Kind: Cut}, rotation.Captured, true},
	} {
		t.Run(string(test.when)+" "+test.fault.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, Personality{})
				p := c.consent()
				c.Gate = Nth(1, "issuer.Redeem", test.when, test.fault)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				answer := c.Redeem(ctx, Sandbox, rotation.Grant{RefreshToken: p.RefreshToken})
				time.Sleep(time.Hour)
				if spent := !c.Takes(p.RefreshToken.Fingerprint()); answer.Class != test.class || spent != test.spent {
					t.Errorf("class %s, spent %t; want %s, %t", answer.Class, spent, test.class, test.spent)
				}
				if verdict := c.Parse(answer.Body).Verdict; test.fault.Kind == Cut && verdict != rotation.Empty {
					t.Errorf("half an answer is %s", verdict)
				}
			})
		})
	}
}

func TestParse(t *testing.T) {
	for body, want := range map[string]rotation.Verdict{
		`{"access_token":"a","refresh_token":"r","token_type":"Bearer","expires_in":5400,"created_at":1}`: rotation.Sound,
		`{"access_token":"a","token_type":"Bearer"}`:                                                      rotation.Empty,
		``:                          rotation.Empty,
		`{"refresh_token":"r"`:      rotation.Salvaged,
		`{"refresh_token":"cut off`: rotation.Empty,
		`{"refresh_token":"a"}{"refresh_token":"b"}`: rotation.Contradictory,
	} {
		if got := (&Issuer{}).Parse(token.NewSecret(body)); got.Verdict != want {
			t.Errorf("%s is %s, want %s", body, got.Verdict, want)
		}
	}
}

func TestTheJournalIsATraceWithoutSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewHarness(nil, Personality{})
		code := b.Issuer.Authorize(rotation.Identity{}, Sandbox.RedirectURI, "")
		ctx := WithActor(t.Context(), "callback")
		answer := b.Issuer.Redeem(ctx, Sandbox, rotation.Grant{Code: code, RedirectURI: Sandbox.RedirectURI})
		pair := b.Issuer.Parse(answer.Body).Pair
		_ = b.Ledger.SaveResponse(ctx, response(1, 0, "a"))
		_, _ = b.Ledger.Write(ctx, rotation.Change{Record: rotation.Record{Connection: acme, Epoch: 1,
			Status: rotation.Active,
			DueAt:  time.Now().Add(time.Hour)}, History: []rotation.Event{{Kind: "decided"}}})
		_ = b.SecretStore.Create(ctx, acme, id(1), value(1))
		_ = b.FollowUps.Send(ctx, rotation.Request{Op: "publish"}, time.Second)
		_ = b.Notifier.Notify(ctx, rotation.Notice{Kind: rotation.NoticeDrift})
		b.Issuer.Withdraw(ctx, pair.AccessToken)
		trace := b.Journal.String()
		for _, want := range []string{
			"1 00:00:00.000 callback   presented #1: ", "granted #1: ", "answered #1: captured",
			"sandbox/acme saved (1,0) as saved from refresh", "sandbox/acme wrote (1,0) active, history: decided, " +
				"due 1 01:00:00.000",
			"moved AWSCURRENT from nothing to ", "queued publish in 1s", "noticed drift", ": withdrawn",
		} {
			if !strings.Contains(trace, want) {
				t.Errorf("the trace lacks %q:\n%s", want, trace)
			}
		}
		access, others := b.Issuer.Secrets()
		for _, secret := range append(access, others...) {
			if form := Discloses(trace, secret); form != "" {
				t.Errorf("the trace has a secret %s", form)
			}
		}
	})
}

func TestClientCredentials(t *testing.T) {
	c := newClient(t, Personality{})
	own := rotation.Grant{ClientCredentials: true}
	answer := c.Redeem(t.Context(), Sandbox, own)
	judged := c.Parse(answer.Body)
	if answer.Class != rotation.Captured || judged.Verdict != rotation.AccessOnly || !c.Accepts(t.Context(),
		judged.Pair.AccessToken) {
		t.Errorf("got %s, %+v", answer.Class, judged)
	}
	wrong := Sandbox
	wrong.ClientSecret = token.NewSecret("another")
	if answer := c.Redeem(t.Context(), wrong, own); answer.Class != rotation.ClientFault {
		t.Errorf("with a wrong secret: %s", answer.Class)
	}
}

// A server that ends the family on revocation, and one that refuses by mistake.
func TestTroublesomeServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Personality{RevokesFamily: true})
		first := c.consent()
		second := c.refresh(first)
		other := c.consent()
		if err := c.Revoke(t.Context(), Sandbox, first.RefreshToken); err != nil {
			t.Fatal(err)
		}
		c.alive("the successor of what was revoked", second, false, false)
		c.alive("another consent", other, true, true)

		c = newClient(t, Personality{RefusesOnce: true})
		first = c.consent()
		c.refused(first)
		second = c.refresh(first)
		c.refresh(second)
		c.refused(c.consent())
	})
}
