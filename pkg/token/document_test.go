package token

import (
	"testing"
	"time"
)

func TestExpiresAt(t *testing.T) {
	saved := time.Date(2026, 11, 21, 22, 0, 0, 500_000_000, time.UTC)
	for name, c := range map[string]struct {
		created time.Time
		want    time.Time
	}{
		"no created_at":              {time.Time{}, saved.Add(90 * time.Minute)},
		"created as it was saved":    {saved, saved.Add(90 * time.Minute)},
		"created on the way":         {saved.Add(-2 * time.Second), saved.Add(90*time.Minute - 2*time.Second)},
		"the longest way":            {saved.Add(-time.Minute), saved.Add(89 * time.Minute)},
		"a clock ahead":              {saved.Add(time.Hour), saved.Add(90 * time.Minute)},
		"a clock two minutes behind": {saved.Add(-2 * time.Minute), saved.Add(90 * time.Minute)},
		"a clock five hours behind":  {saved.Add(-5 * time.Hour), saved.Add(90 * time.Minute)},
		"a clock that was never set": {time.Unix(60, 0), saved.Add(90 * time.Minute)},
		"a token given once more":    {saved.Add(-80 * time.Minute), saved.Add(90 * time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			pair := Pair{Lifetime: 90 * time.Minute, CreatedAt: c.created}
			if got := pair.ExpiresAt(saved); !got.Equal(c.want.Truncate(time.Second)) {
				t.Errorf("expires at %v, want %v", got, c.want)
			}
		})
	}
}
