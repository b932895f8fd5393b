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

func TestDisconnectRevokesEverything(t *testing.T) {
	for name, personality := range rotationtest.Personalities {
		if personality.NoRotation {
			continue
		}
		for _, age := range []time.Duration{time.Minute, 3 * time.Hour} { // with a live, and an expired access token
			t.Run(name+" after "+age.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newHarness(personality)
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

// A pair that was issued to another app cannot be revoked with these app credentials. After a
// day of tries that is said once, and no run tries again. If the credentials are wrong in another way, runs do.
func TestAPairOfAnotherAppIsNotRevoked(t *testing.T) {
	for name, test := range map[string]struct {
		clientID string
		want     string // in the history
	}{
		"another client id": {"another", "not revoked, because it was issued to another client id than that of the app " +
			"credentials; its access token works until it expires; to end its refresh token, revoke the app's access in " +
			"Procore"},
		"another secret": {app.ClientID, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				changed := app
				changed.ClientID, changed.ClientSecret = test.clientID, token.NewSecret("another secret")
				b.Applications.Set(changed)
				r := b.rotatorWith(revokesNothing{b.Issuer})
				_, err := r.Disconnect(t.Context(), acme)
				must(t, err)
				sweepHourly(t, r, 90) // of which none ends it
				if got := b.revocation(t); got != "" || len(b.record(t).Failures) == 0 {
					t.Errorf("within a day, history says %q", got)
				}
				sweepHourly(t, r, 20)
				if got := b.revocation(t); got != test.want {
					t.Errorf("history says %q", got)
				}
				ended := test.want != ""
				if failures := b.record(t).Failures; (len(failures) == 0) != ended {
					t.Errorf("failures %+v", failures)
				}
				if notices := b.notices(); ended && len(notices) != 1 || !ended && len(notices) != 0 {
					t.Errorf("notices %v", notices)
				}
			})
		})
	}
}

// sweepHourly lets n hours pass, with a sweep at the end of each.
func sweepHourly(t *testing.T, r *rotation.Rotator, n int) {
	t.Helper()
	for range n {
		time.Sleep(time.Hour)
		_, err := r.Sweep(t.Context())
		must(t, err)
	}
}

// revokesNothing lets nobody revoke a token.
type revokesNothing struct{ rotation.Issuer }

func (revokesNothing) Revoke(context.Context, rotation.Application, token.Secret) error {
	return rotation.ErrCredentialsRefused
}

// livePairs counts the pairs that the issuer would still redeem.
func (b *harness) livePairs(t *testing.T) int {
	t.Helper()
	live := 0
	for _, e := range b.Journal.Entries() {
		if g, ok := e.Effect.(rotationtest.Granted); ok && b.Issuer.Takes(g.Pair) {
			live++
		}
	}
	return live
}

func TestAPairIsRevokedEvenIfTheAPIDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{Lifetime: 1000 * time.Hour})
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

func (i halfIdentified) Identify(ctx context.Context, app rotation.Application, access token.Secret,
	company string) (rotation.Identity, error) {
	id, err := i.Issuer.Identify(ctx, app, access, company)
	return rotation.Identity{ClientID: id.ClientID, ResourceOwner: id.ResourceOwner},
		errors.Join(err, errors.New("HTTP 503"))
}

// A server may answer the revocation with success and do nothing. It is asked again until
// the pair is dead or its state can no longer be checked.
func TestRevokedIsSaidOfADeadPairOnly(t *testing.T) {
	for name, test := range map[string]struct {
		listensAfter time.Duration
		want         string
	}{
		"later": {time.Hour, "revoked"},
		"never": {1000 * time.Hour, "revocation requested; the access token had expired, and some servers then do nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{Lifetime: 8 * time.Hour})
				b.connect(t)
				r := b.rotatorWith(deaf{b.Issuer, time.Now().Add(test.listensAfter)})
				report, err := r.Disconnect(t.Context(), acme)
				must(t, err)
				if detail := report.Connections[0].Detail; !strings.Contains(detail, "still accepts the access token") {
					t.Errorf("detail %q", detail)
				}
				if got := b.revocation(t); got != "" {
					t.Errorf("history says %q of a pair that lives", got)
				}
				sweepHourly(t, r, 20)
				if got := b.revocation(t); got != test.want {
					t.Errorf("history says %q", got)
				}
			})
		})
	}
}

// deaf answers revocations with success and does nothing until a given time.
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

// revocation is the history detail of the last revocation.
func (b *harness) revocation(t *testing.T) string {
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
		b := newHarness(rotationtest.Personality{KillFamily: true})
		b.connect(t)
		time.Sleep(time.Hour)
		two := withSeveralTokens(b.Issuer)
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

// revocations records what is revoked.
type revocations struct {
	rotation.Issuer
	revoked []token.Fingerprint
}

func (r *revocations) Revoke(ctx context.Context, app rotation.Application, t token.Secret) error {
	r.revoked = append(r.revoked, t.Fingerprint())
	return r.Issuer.Revoke(ctx, app, t)
}

// Two answers of a server that sends the same refresh token again: the later one is a copy
// of the current pair.
func TestACopyOfTheCurrentPairIsNotRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &faultScenario{harness: newHarness(rotationtest.Personality{NoRotation: true}), t: t}
		m.connect(t)
		time.Sleep(time.Hour)
		m.issuer = repeating{m.Issuer}
		m.during(1, "ledger.SaveResponse", before, func() {
			time.Sleep(4 * time.Minute)
			m.sweep()
		}).rotate()
		if n := m.answers(); n != 2 {
			t.Errorf("%d answers are saved, want 2", n)
		}
		if err := m.calm().works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, m.Journal)
		}
	})
}
