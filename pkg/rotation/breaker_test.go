package rotation

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// The more serious of two reasons for an open circuit breaker counts, in either order.
func TestTheMoreSeriousReasonKeepsTheBreakerOpen(t *testing.T) {
	const environment = "sandbox"
	stop := func(b *breaker) { b.openForRun(environment, "refused") }
	pause := func(wait time.Duration) func(*breaker) {
		return func(b *breaker) { b.openFor(t.Context(), environment, wait, "asked to wait") }
	}
	tests := []struct {
		name    string
		reasons []func(*breaker)
		outcome Outcome
		lasts   time.Duration // 0: to the end of the run
	}{
		{"a stop, then a pause", []func(*breaker){stop, pause(time.Minute)}, ConfigError, 0},
		{"a pause, then a stop", []func(*breaker){pause(time.Minute), stop}, ConfigError, 0},
		{"a pause, then a shorter one", []func(*breaker){pause(time.Minute), pause(time.Second)}, Deferred, time.Minute},
		{"a pause, then a longer one", []func(*breaker){pause(time.Second), pause(time.Minute)}, Deferred, time.Minute},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(slog.New(slog.DiscardHandler), time.Now)
				for _, reason := range test.reasons {
					reason(b)
				}
				time.Sleep(max(test.lasts-time.Nanosecond, 0))
				if o, blocked := b.blocks(environment); !blocked || o.outcome != test.outcome {
					t.Errorf("%t, %+v; want %s", blocked, o, test.outcome)
				}
				time.Sleep(time.Hour)
				if _, blocked := b.blocks(environment); blocked != (test.lasts == 0) {
					t.Errorf("an hour later blocked: %t", blocked)
				}
				if _, blocked := b.blocks("production"); blocked {
					t.Error("another environment is blocked as well")
				}
			})
		})
	}
}
