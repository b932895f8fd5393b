package rotation

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// redeemBurst is how many redeems an environment takes at once after a quiet time.
	redeemBurst = 10
	// putRate is how many rotations a second the secret store takes. Secrets Manager
	// grants each account and Region 50 writes a second, which cannot be raised. A
	// rotation needs two, and a fifth is left to other programs.
	putRate = 20
	// putClock names the clock that all environments share. No environment name has a
	// space in it.
	putClock = "the secret store"
	// farAhead is how far a shared reservation may lie ahead of what the backlog
	// explains. One that lies further ahead comes from a wrong clock.
	farAhead = time.Minute
)

var errNoTime = errors.New("no time left in this run")

// limiter makes the runs of one process wait until they may redeem.
type limiter struct {
	shared   RateLimiter // nil: this process has the whole rate
	own      ownLimiter
	settings Settings
	log      *slog.Logger

	mu      sync.Mutex
	spare   map[string]int    // reservations that were waited for and then not used
	batches map[string]*batch // by name
}

// leftoverLife is how long reservations of a batch that a run has not used stay valid.
// They come on top of the burst.
const leftoverLife = 5 * time.Second

// batch is a number of consecutive reservations that were made with one call.
type batch struct {
	free chan struct{} // has an element while nobody uses the batch
	next time.Time
	left int
}

func newLimiter(shared RateLimiter, settings Settings, log *slog.Logger) *limiter {
	return &limiter{shared: shared, own: ownLimiter{next: map[string]time.Time{}}, settings: settings, log: log,
		spare: map[string]int{}, batches: map[string]*batch{}}
}

// wait returns when the environment takes a redeem, and reports whether it had to wait.
// backlog is how many connections of the environment this run has to handle. errNoTime
// if the run would be over first.
func (l *limiter) wait(ctx context.Context, environment string, backlog int) (waited bool, err error) {
	if l.takeSpare(environment) {
		return false, nil
	}
	at := l.reserve(ctx, environment, l.settings.RedeemRate, backlog)
	// Procore has four environments. As long as each uses at most a quarter of putRate,
	// together they stay within it.
	if l.settings.PutsPerDay > 0 && l.settings.RedeemRate > putRate/4 {
		if other := l.reserve(ctx, putClock, putRate, backlog); other.After(at) {
			at = other
		}
	}
	wait := time.Until(at)
	if wait <= 0 {
		return false, nil
	}
	if !l.settings.timeLeft(ctx, wait) {
		return false, errNoTime
	}
	select {
	case <-time.After(wait):
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// reserve returns the time of the next reservation. For a backlog it makes as many
// reservations with one call as may be used at once.
func (l *limiter) reserve(ctx context.Context, name string, rate float64, backlog int) (at time.Time) {
	every := time.Duration(float64(time.Second) / rate)
	b := l.batch(name)
	select {
	case <-b.free:
		defer func() { b.free <- struct{}{} }()
	case <-ctx.Done():
		return time.Now() // the caller finds that its time is over
	}
	now := time.Now()
	earliest := now.Add(-(redeemBurst - 1) * every)
	if b.left == 0 || b.next.Before(earliest.Add(-leftoverLife)) {
		b.left = min(max(backlog, 1), redeemBurst)
		b.next = l.reserveSeveral(ctx, name, earliest, every, b.left, backlog)
	}
	at, b.next, b.left = b.next, b.next.Add(every), b.left-1
	return at
}

func (l *limiter) batch(name string) *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.batches[name] == nil {
		l.batches[name] = &batch{free: make(chan struct{}, 1)}
		l.batches[name].free <- struct{}{}
	}
	return l.batches[name]
}

// reserveSeveral makes several reservations and returns the time of the first. If the
// shared limiter cannot be reached or is far ahead, this process uses its own limiter:
// exceeding the rate does less harm than a token that expires.
func (l *limiter) reserveSeveral(ctx context.Context, name string, earliest time.Time, every time.Duration, several,
	backlog int) (at time.Time) {
	own := l.own.reserve(name, earliest, time.Duration(several)*every)
	if l.shared == nil {
		return own
	}
	now := time.Now()
	err := within(ctx, storeTimeout, func(ctx context.Context) (err error) {
		at, err = l.shared.Reserve(ctx, name, earliest, time.Duration(several)*every)
		return err
	})
	if err != nil {
		l.log.WarnContext(ctx, "the shared rate limiter cannot be reached; this process uses its own", "name", name,
			"error", err)
		return own
	}
	explained := time.Duration(backlog+redeemBurst+l.settings.Concurrency) * every
	if ahead := at.Sub(now); ahead > farAhead+explained {
		l.log.WarnContext(ctx, "the shared rate limiter is further ahead than any backlog explains; "+
			"this process uses its own. Check the clocks of all machines that use this installation", "name", name, "ahead",
			ahead.Round(time.Second).String())
		return own
	}
	return at
}

// giveBack leaves an unused reservation to the next caller of wait.
func (l *limiter) giveBack(environment string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare[environment] = min(l.spare[environment]+1, redeemBurst)
}

func (l *limiter) takeSpare(environment string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare[environment] == 0 {
		return false
	}
	l.spare[environment]--
	return true
}

// ownLimiter is the rate limiter of one process.
type ownLimiter struct {
	mu   sync.Mutex
	next map[string]time.Time
}

func (l *ownLimiter) reserve(name string, earliest time.Time, every time.Duration) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.next[name]
	if at.Before(earliest) {
		at = earliest
	}
	l.next[name] = at.Add(every)
	return at
}
