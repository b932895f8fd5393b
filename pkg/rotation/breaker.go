package rotation

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// breaker is the circuit breaker of one run. While it is open for an environment,
// the run presents nothing there, because the server refuses the app or its login
// host needs a break. The other environments go on.
type breaker struct {
	log   *slog.Logger
	clock func() time.Time

	mu     sync.Mutex
	open   map[string]opened
	faults map[string]int // connections with a request that an environment called invalid
	lost   map[string]int // answers of an environment that were lost
	noTime map[string]bool
}

// opened says why the breaker is open for an environment.
type opened struct {
	outcome Outcome // ConfigError: until the run ends; Deferred: until the time below
	why     string
	until   time.Time
}

func newBreaker(log *slog.Logger, clock func() time.Time) *breaker {
	return &breaker{log: log, clock: clock, open: map[string]opened{}, faults: map[string]int{}, lost: map[string]int{},
		noTime: map[string]bool{}}
}

// openForRun opens the breaker for an environment until the run ends.
func (b *breaker) openForRun(environment, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[environment] = opened{outcome: ConfigError, why: why}
}

// openFor opens the breaker for an environment for the given time. The first
// connection that meets the cause is enough.
func (b *breaker) openFor(ctx context.Context, environment string, wait time.Duration, why string) {
	until := b.clock().Add(wait)
	b.mu.Lock()
	was := b.open[environment]
	keep := was.outcome == ConfigError || !until.After(was.until)
	if !keep {
		b.open[environment] = opened{Deferred, why, until}
	}
	b.mu.Unlock()
	if !keep && was.why == "" {
		b.log.WarnContext(ctx, "nothing is sent to the login host of an environment for a while; other environments go on",
			"environment", environment, "until", until.UTC().Format(time.RFC3339), "why", why)
	}
}

// blocks reports whether the breaker is open for an environment now, and why.
func (b *breaker) blocks(environment string) (opened, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, is := b.open[environment]
	return o, is && (o.outcome == ConfigError || b.clock().Before(o.until))
}

// answerLost counts the lost answers of an environment. After three, the run treats
// its login host as down, because each further one would leave one more token in doubt.
func (b *breaker) answerLost(environment string) (tooMany bool) {
	return b.count(b.lost, environment)
}

// requestFault counts the connections of an environment with a request that the
// server called invalid. With three of them, the connections are not the cause.
func (b *breaker) requestFault(environment string) (tooMany bool) {
	return b.count(b.faults, environment)
}

func (b *breaker) count(counts map[string]int, environment string) (tooMany bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts[environment]++
	return counts[environment] >= 3
}

// outOfTime records that the rate limit of an environment leaves this run no time
// for more of its connections.
func (b *breaker) outOfTime(environment string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noTime[environment] = true
}

// hasTime reports whether this run has time for connections of an environment.
func (b *breaker) hasTime(environment string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.noTime[environment]
}

// anyOutOfTime reports whether connections of some environment stay due.
func (b *breaker) anyOutOfTime() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.noTime) > 0
}
