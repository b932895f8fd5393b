package rotation_test

import (
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

const (
	hour = time.Hour
	day  = 24 * time.Hour
)

// Through two days of hourly sweeps, of which the second has the secret store's quota
// filled by the first, readers always find an access token that is not past its
// expires_at: with any lifetime, of people and service accounts, and even if the clock of
// the login host is hours behind.
func TestReadersAlwaysFindALivingToken(t *testing.T) {
	for _, lifetime := range []time.Duration{900 * time.Second, 5400 * time.Second, 7200 * time.Second} {
		for _, behind := range []time.Duration{0, 20 * time.Second, 5 * hour} {
			for _, service := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v, clock %v behind, service account %t", lifetime, behind, service), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := newHarness(rotationtest.Personality{Lifetime: lifetime, Behind: behind})
						if service {
							b.serve(t)
						} else {
							b.connect(t)
						}
						begun := b.record(t).Generation
						b.live(t, time.Now().Add(2*day), nil)
						from := time.Now().Add(-day)
						if gap := b.gap(from, time.Now()); gap != 0 {
							t.Errorf("for %v of the second day readers had no live token", gap)
						}
						redeems := b.record(t).Generation - begun
						least := (2*day+lifetime-1)/lifetime - 1
						t.Logf("100%% of 24 h covered; %d redeems in 48 h, the least possible number is %d", redeems, least)
						if b.gap(from.Add(-day+time.Minute), from) != 0 {
							t.Error("on the first day they had not")
						}
						wrongClock := func(kind string) bool { return behind > time.Minute && kind == rotation.NoticeClock }
						if kinds := slices.DeleteFunc(b.notices(), wrongClock); len(kinds) != 0 {
							t.Errorf("people were notified of %v", kinds)
						}
					})
				})
			}
		}
	}
}

// Readers that ask for more life than a token has left get a new one while there is room.
// That never costs other readers their token: one stays alive through the next day, and
// no put is refused.
func TestAskingForMoreLifeLeavesRoomForTheDay(t *testing.T) {
	for _, c := range []struct {
		lifetime time.Duration
		minTTL   int64
		extra    bool // some of what is asked for can be had
	}{{900 * time.Second, 600, false}, {5400 * time.Second, 5000, true}, {1200 * time.Second, 900, false}} {
		t.Run(c.lifetime.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{Lifetime: c.lifetime})
				b.connect(t)
				asked := map[rotation.Outcome]int{}
				b.live(t, time.Now().Add(2*day), func() {
					request := rotation.Request{Op: "ensure", Connection: acme.String(), MinTTLSeconds: c.minTTL}
					report, err := b.rotator().Do(t.Context(), request)
					must(t, err)
					asked[report.Connections[0].Outcome]++
				})
				if gap := b.gap(time.Now().Add(-2*day+time.Minute), time.Now()); gap != 0 {
					t.Errorf("for %v readers had no live token", gap)
				}
				if asked[rotation.Deferred]+asked[rotation.Failed] != 0 {
					t.Errorf("asking led to %v", asked)
				}
				if n := asked[rotation.Rotated]; c.extra && n < 10 {
					t.Errorf("asked for every two minutes, it was rotated %d times", n)
				}
				t.Logf("%v: asked for %d s every two minutes of two days: %v; %d generations", c.lifetime, c.minTTL, asked,
					b.record(t).Generation)
			})
		})
	}
}

// A change of the lifetime is one notice, for any number of connections, and however
// long it stays changed.
func TestALifetimeThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{Lifetime: 5400 * time.Second})
		time.Sleep(306 * time.Millisecond) // servers count in seconds
		b.connect(t)
		b.live(t, time.Now().Add(3*hour), nil)
		b.Issuer.Personality.Lifetime = 900 * time.Second
		b.live(t, time.Now().Add(3*hour), nil)
		if kinds := b.notices(); !slices.Equal(kinds, []string{rotation.NoticeLifetimeChanged}) {
			t.Errorf("people were notified of %v", kinds)
		}
		if said := b.Notifier.Notices()[0].Summary; strings.Contains(said, ".694") || strings.Contains(said, ".306") {
			t.Errorf("people read %q", said)
		}
		if gap := b.gap(time.Now().Add(-5*hour), time.Now()); gap != 0 {
			t.Errorf("for %v readers had no live token", gap)
		}
	})
}

// live lets hours go by until end: sweeps by the hour, messages when they are
// due, and every two minutes what is to be done besides.
func (b *harness) live(t *testing.T, end time.Time, besides func()) {
	t.Helper()
	for sweep, also := time.Now().Add(hour), time.Now().Add(2*time.Minute); time.Now().Before(end); {
		next := sweep
		if at := b.FollowUps.Next(); !at.IsZero() && at.Before(next) {
			next = at
		}
		if besides != nil && also.Before(next) {
			next = also
		}
		time.Sleep(time.Until(next))
		b.deliver(t.Context())
		if !time.Now().Before(sweep) {
			b.sweep(t)
			sweep = sweep.Add(hour)
		}
		if besides != nil && !time.Now().Before(also) {
			besides()
			also = also.Add(2 * time.Minute)
		}
	}
}

// gap is for how long between two times AWSCURRENT was on no token that was not
// past its expires_at.
func (b *harness) gap(from, to time.Time) (gap time.Duration) {
	values := map[string]token.Secret{}
	alive := from // until when what was published up to now covers
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case rotationtest.Stored:
			values[effect.Version.ID] = effect.Version.Value
		case rotationtest.Moved:
			doc, err := token.ParseDocument(values[effect.To])
			if err != nil || effect.Label != "AWSCURRENT" || e.At.After(to) {
				continue
			}
			if e.At.After(alive) {
				gap += e.At.Sub(alive)
				alive = e.At
			}
			if doc.ExpiresAt.After(alive) {
				alive = doc.ExpiresAt
			}
		}
	}
	if alive.Before(to) {
		gap += to.Sub(alive)
	}
	return gap
}
