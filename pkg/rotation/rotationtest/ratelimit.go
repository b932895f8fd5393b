package rotationtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var _ rotation.RateLimiter = (*RateLimiter)(nil)

// RateLimiter keeps its clocks in memory. The zero value has none yet.
type RateLimiter struct {
	Gate   Gate
	mu     sync.Mutex
	clocks map[string]time.Time
}

func (p *RateLimiter) Reserve(ctx context.Context, name string, earliest time.Time, every time.Duration) (time.Time,
	error) {
	return Through(ctx, p.Gate, "ratelimiter.Reserve", token.Connection{}, func(bool) (time.Time, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.clocks == nil {
			p.clocks = map[string]time.Time{}
		}
		at := p.clocks[name]
		if at.Before(earliest) {
			at = earliest
		}
		p.clocks[name] = at.Add(every)
		return at, nil
	})
}

// TestRateLimiter is the contract of rotation.RateLimiter. open returns one without clocks.
// Its transport may repeat calls and so skip reservations.
func TestRateLimiter(t *testing.T, open func(t *testing.T) rotation.RateLimiter) {
	const every = 500 * time.Millisecond
	nextAfter := func(t *testing.T, at, earliest time.Time) {
		t.Helper()
		if skipped := at.Sub(earliest); skipped < 0 || skipped > 20*every || skipped%every != 0 {
			t.Errorf("the reservation is at %v, want %v, or a whole number of intervals later", at, earliest)
		}
	}
	reserve := func(t *testing.T, p rotation.RateLimiter, name string, earliest time.Time) time.Time {
		t.Helper()
		at, err := p.Reserve(t.Context(), name, earliest, every)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	t.Run("reservations follow each other", func(t *testing.T) {
		p, next := open(t), start
		for range 5 {
			at := reserve(t, p, "sandbox", start)
			nextAfter(t, at, next)
			next = at.Add(every)
		}
	})
	t.Run("a clock in the past is moved to earliest", func(t *testing.T) {
		p := open(t)
		reserve(t, p, "sandbox", start)
		late := start.Add(time.Hour)
		at := reserve(t, p, "sandbox", late)
		nextAfter(t, at, late)
		nextAfter(t, reserve(t, p, "sandbox", start), at.Add(every)) // a caller with a slow clock
	})
	t.Run("names are apart", func(t *testing.T) {
		p := open(t)
		for range 30 {
			reserve(t, p, "sandbox", start)
		}
		nextAfter(t, reserve(t, p, "production", start), start)
	})
	t.Run("many callers reserve at once", func(t *testing.T) {
		p := open(t)
		const takers, each = 4, 5
		var mu sync.Mutex
		taken := map[time.Time]bool{}
		var wg sync.WaitGroup
		for range takers {
			wg.Go(func() {
				for range each {
					at, err := p.Reserve(t.Context(), "sandbox", start, every)
					mu.Lock()
					if taken[at.UTC()] || err != nil || at.Before(start) {
						t.Errorf("the reservation at %v is made twice, or not at all: %v", at, err)
					}
					taken[at.UTC()] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(taken) != takers*each {
			t.Errorf("%d reservations for %d calls", len(taken), takers*each)
		}
	})
}
