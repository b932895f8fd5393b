package rotationtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var _ rotation.NoticeClaims = (*NoticeClaims)(nil)

// NoticeClaims keeps claims in memory. The zero value has none yet.
type NoticeClaims struct {
	Gate  Gate
	mu    sync.Mutex
	until map[string]time.Time
}

func (a *NoticeClaims) First(ctx context.Context, event string, now, until time.Time) (bool, error) {
	return Through(ctx, a.Gate, "noticeclaims.First", token.Connection{}, func(bool) (bool, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if now.Before(a.until[event]) {
			return false, nil
		}
		if a.until == nil {
			a.until = map[string]time.Time{}
		}
		a.until[event] = until
		return true, nil
	})
}

// TestNoticeClaims is the contract of rotation.NoticeClaims. open returns one without claims.
// Its transport may repeat calls.
func TestNoticeClaims(t *testing.T, open func(t *testing.T) rotation.NoticeClaims) {
	a, now := open(t), time.Now()
	first := func(event string, now time.Time) bool {
		t.Helper()
		got, err := a.First(t.Context(), event, now, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if !first("config_error sandbox", now) {
		t.Error("the first claim is not the first")
	}
	if first("config_error sandbox", now.Add(59*time.Minute)) {
		t.Error("it is claimed again while it is claimed")
	}
	if !first("config_error production", now) {
		t.Error("a claim blocks another one")
	}
	if !first("config_error sandbox", now.Add(time.Hour)) {
		t.Error("it cannot be claimed again when its time is over")
	}
	var wins sync.Map
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if got, err := a.First(context.WithoutCancel(t.Context()), "at once", now, now.Add(time.Hour)); err != nil || got {
				wins.Store(i, err)
			}
		})
	}
	wg.Wait()
	n := 0
	wins.Range(func(_, err any) bool {
		if err != nil {
			t.Error(err)
		}
		n++
		return true
	})
	if n != 1 {
		t.Errorf("%d of eight at once are the first", n)
	}
}
