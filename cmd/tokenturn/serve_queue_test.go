package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

// recorder is an engine that notes when which request came.
type recorder struct {
	start time.Time
	mu    sync.Mutex
	came  []string
	takes time.Duration
	ended int
}

func (r *recorder) Do(ctx context.Context, request rotation.Request) (rotation.Report, error) {
	r.mu.Lock()
	r.came = append(r.came, time.Since(r.start).String()+" "+request.Op+" "+request.Connection)
	r.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(r.takes):
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended++
	return rotation.Report{Op: request.Op}, ctx.Err()
}

func TestQueueDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &recorder{start: time.Now()}
		q := newQueue(time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			q.deliver(ctx, time.Hour, trigger.Handler{Engine: engine, Log: slog.New(slog.DiscardHandler)}, func(time.Time) {})
		}()
		for _, follow := range []struct {
			request rotation.Request
			delay   time.Duration
		}{
			{rotation.Request{Op: "ensure", Connection: "demo/acme", MinTTLSeconds: 60}, 15 * time.Minute},
			{rotation.Request{Op: "publish", Connection: "demo/acme"}, 0},
			{rotation.Request{Op: "sweep"}, 3 * time.Hour},
		} {
			if err := q.Send(ctx, follow.request, follow.delay); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(2*time.Hour + time.Minute) // of synctest's clock
		cancel()
		<-ended
		time.Sleep(2 * time.Hour)
		want := []string{"0s publish demo/acme", "0s sweep ", "15m0s ensure demo/acme", "1h0m0s sweep ", "2h0m0s sweep "}
		slices.Sort(engine.came[:2]) // they come at the same time
		if !slices.Equal(engine.came, want) {
			t.Errorf("came %q, want %q", engine.came, want)
		}
	})
}

func TestQueueLetsFinishAndThenInsists(t *testing.T) {
	for name, takes := range map[string]time.Duration{"in time": grace - time.Second, "too long": grace + time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				engine := &recorder{start: time.Now(), takes: takes}
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				newQueue(time.Now).deliver(ctx, time.Hour, trigger.Handler{Engine: engine,
					Log: slog.New(slog.DiscardHandler)}, func(time.Time) {})
				if want := min(takes, time.Second+grace); engine.ended != 1 || time.Since(engine.start) != want {
					t.Errorf("%d ended after %v, want 1 after %v", engine.ended, time.Since(engine.start), want)
				}
			})
		})
	}
}

// A machine sleeps for hours, during which no timer advances. Within a minute after that, the
// sweep and the messages that became due are delivered, once. A clock that is set back delays
// nothing.
func TestQueueAfterSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &recorder{start: time.Now()}
		var slept atomic.Int64
		q := newQueue(func() time.Time { return time.Now().Round(0).Add(time.Duration(slept.Load())) })
		var beats []time.Time
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			q.deliver(ctx, time.Hour, trigger.Handler{Engine: engine, Log: slog.New(slog.DiscardHandler)},
				func(swept time.Time) { beats = append(beats, swept) })
		}()
		if err := q.Send(ctx, rotation.Request{Op: "publish", Connection: "demo/acme"}, 2*time.Hour); err != nil {
			t.Error(err)
		}
		time.Sleep(10*time.Minute + time.Second) // of synctest's clock
		slept.Add(int64(5 * time.Hour))
		time.Sleep(time.Minute)
		cancel()
		<-ended
		want := []string{"0s sweep ", "10m30s publish demo/acme", "10m30s sweep "}
		slices.Sort(engine.came[1:])
		if !slices.Equal(engine.came, want) {
			t.Errorf("came %q, want %q", engine.came, want)
		}
		if last := beats[len(beats)-1]; last.Sub(engine.start) != 5*time.Hour+10*time.Minute+30*time.Second {
			t.Errorf("the last sweep was at %v", last)
		}
		if len(beats) < 22 {
			t.Errorf("%d beats in eleven minutes", len(beats))
		}
	})
}

func TestTimeLeft(t *testing.T) {
	at := time.Now().Add(time.Hour)
	if left := timeLeft(at, at.Round(0).Add(-2*time.Hour)); left != 2*time.Hour {
		t.Errorf("%v by the wall clock", left)
	}
	if left := timeLeft(at, at.Add(-time.Minute)); left != time.Minute {
		t.Errorf("%v by both clocks", left)
	}
}
