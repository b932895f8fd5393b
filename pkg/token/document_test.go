package token

import (
	"math"
	"testing"
	"time"
)

// The published expiry counts from created_at or, if that is too old, from the time of
// saving; due times count from the earlier of the two. Each line gives created_at and
// the three results relative to the time of saving.
func TestExpiry(t *testing.T) {
	const life = 90 * time.Minute
	saved := time.Date(2026, 11, 21, 22, 0, 0, 500_000_000, time.UTC)
	at := func(offset time.Duration) time.Time { return saved.Add(offset) }
	for name, c := range map[string]struct {
		created                time.Time
		skew, expiry, earliest time.Duration
	}{
		"no created_at":               {time.Time{}, 0, life, life},
		"created as it was saved":     {saved, 0, life, life},
		"created on the way":          {at(-2 * time.Second), -2 * time.Second, life - 2*time.Second, life - 2*time.Second},
		"the longest way":             {at(-time.Minute), -time.Minute, life - time.Minute, life - time.Minute},
		"more than the longest way":   {at(-61 * time.Second), -61 * time.Second, life, life - 61*time.Second},
		"the server's clock ahead":    {at(30 * time.Second), 30 * time.Second, life + 30*time.Second, life},
		"ahead by an hour":            {at(time.Hour), time.Hour, life + time.Hour, life},
		"our clock hours ahead":       {at(-5 * time.Hour), -5 * time.Hour, life, life - 5*time.Hour},
		"our clock days ahead":        {at(-9 * 24 * time.Hour), -9 * 24 * time.Hour, life, life - 9*24*time.Hour},
		"a token given once more":     {at(-80 * time.Minute), -80 * time.Minute, life, life - 80*time.Minute},
		"the most that is believed":   {at(maxSkew), maxSkew, life + maxSkew, life},
		"and the other way round":     {at(-maxSkew), -maxSkew, life, life - maxSkew},
		"a second more":               {at(maxSkew + time.Second), 0, life, life},
		"and a second less":           {at(-maxSkew - time.Second), 0, life, life},
		"a clock that was never set":  {time.Unix(60, 0), 0, life, life},
		"before 1970":                 {time.Unix(-1, 0), 0, life, life},
		"the last year JSON can hold": {time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), 0, life, life},
		"beyond all years":            {time.Unix(math.MaxInt64>>8, 0), 0, life, life},
	} {
		t.Run(name, func(t *testing.T) {
			pair := Pair{Lifetime: life, CreatedAt: c.created}
			if got := pair.ClockSkew(saved); got != c.skew {
				t.Errorf("the clocks differ by %v, want %v", got, c.skew)
			}
			if got, want := pair.ExpiresAt(saved), at(c.expiry).Truncate(time.Second); !got.Equal(want) {
				t.Errorf("expires at %v, want %v", got, want)
			}
			if got, want := pair.EarliestExpiry(saved), at(c.earliest).Truncate(time.Second); !got.Equal(want) {
				t.Errorf("expires at %v at the earliest, want %v", got, want)
			}
			if got := pair.IssuedAt(saved).Add(life).Truncate(time.Second); !got.Equal(pair.ExpiresAt(saved)) {
				t.Errorf("issued at %v does not fit its expiry", pair.IssuedAt(saved))
			}
			document := Document{Connection: Connection{"sandbox", "acme"}, ExpiresAt: pair.ExpiresAt(saved)}
			if _, err := document.Encode(); err != nil {
				t.Errorf("the document cannot be written: %v", err)
			}
		})
	}
}

// A token without a known lifetime counts as expired when it is issued, by either
// count.
func TestExpiryWithoutALifetime(t *testing.T) {
	saved := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	pair := Pair{CreatedAt: saved.Add(-time.Second)}
	if !pair.ExpiresAt(saved).Equal(pair.CreatedAt) || !pair.EarliestExpiry(saved).Equal(pair.CreatedAt) {
		t.Errorf("expires at %v, at the earliest %v", pair.ExpiresAt(saved), pair.EarliestExpiry(saved))
	}
}
