package rotation

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// breaker is the circuit breaker of one run: it ends presenting to an environment
// if its app is refused or its login host has to be left alone. Others go on.
type breaker struct {
	log   *slog.Logger
	clock func() time.Time

	mu     sync.Mutex
	open   map[string]opened
	faults map[string]int // connections whose request an environment called faulty
	lost   map[string]int // answers of an environment that were lost
	noTime map[string]bool
}

// opened is why nothing is presented to an environment.
type opened struct {
	outcome Outcome // ConfigError: to the end of the run; Deferred: until
	why     string
	until   time.Time
}

func newBreaker(log *slog.Logger, clock func() time.Time) *breaker {
	return &breaker{log: log, clock: clock, open: map[string]opened{}, faults: map[string]int{}, lost: map[string]int{},
		noTime: map[string]bool{}}
}

// openForRun ends presenting to an environment for this run.
func (b *breaker) openForRun(environment, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[environment] = opened{outcome: ConfigError, why: why}
}

// openFor ends presenting to an environment for a while. The first connection that
// meets the cause is enough.
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
		b.log.WarnContext(ctx, "nothing is sent to the login host of an environment for a while; the others go on",
			"environment", environment, "until", until.UTC().Format(time.RFC3339), "why", why)
	}
}

// blocks says why nothing may be presented to an environment now, if so.
func (b *breaker) blocks(environment string) (opened, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, is := b.open[environment]
	return o, is && (o.outcome == ConfigError || b.clock().Before(o.until))
}

// answerLost counts lost answers of an environment: after three of them its login
// host is taken for down, for each more would leave one more token in doubt.
func (b *breaker) answerLost(environment string) (tooMany bool) {
	return b.count(b.lost, environment)
}

// requestFault counts connections of an environment whose request was called
// faulty: three of them are not the connections' fault.
func (b *breaker) requestFault(environment string) (tooMany bool) {
	return b.count(b.faults, environment)
}

func (b *breaker) count(counts map[string]int, environment string) (tooMany bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts[environment]++
	return counts[environment] >= 3
}

// outOfTime notes that the rate limit of an environment leaves this run no time
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
