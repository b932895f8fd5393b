package rotation

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// redeemBurst is how many redeems an environment takes at once after a rest.
	redeemBurst = 10
	// vaultRate is the number of rotations a second that the secret store takes: of the
	// 50 writes a second that Secrets Manager grants an account and Region,
	// fixed, a rotation needs two, and a fifth is left to others.
	putRate = 20
	// vaultClock is the pace that all environments share. No environment has a
	// space in its name.
	putClock = "the secret store"
)

var errNoTime = errors.New("no time left in this run")

// pacer gives the runs of one process their turns to redeem.
type limiter struct {
	shared   RateLimiter // nil: this process has the whole pace
	own      ownPace
	settings Settings
	log      *slog.Logger

	mu    sync.Mutex
	spare map[string]int // turns that were waited for and then not needed
}

func newPacer(shared RateLimiter, settings Settings, log *slog.Logger) *limiter {
	return &limiter{shared: shared, own: ownPace{next: map[string]time.Time{}}, settings: settings, log: log, spare: map[string]int{}}
}

// wait returns when a redeem at the environment has its turn, and whether that
// took any time. errNoTime if the run would be over first.
func (p *limiter) wait(ctx context.Context, environment string) (waited bool, err error) {
	if p.takeSpare(environment) {
		return false, nil
	}
	at := p.turn(ctx, environment, p.settings.RedeemRate)
	// The four environments that Procore has stay within what the secret store takes
	// as long as each does with a quarter of it.
	if p.settings.PutsPerDay > 0 && p.settings.RedeemRate > putRate/4 {
		if other := p.turn(ctx, putClock, putRate); other.After(at) {
			at = other
		}
	}
	wait := time.Until(at)
	if wait <= 0 {
		return false, nil
	}
	if !p.settings.timeLeft(ctx, wait) {
		return false, errNoTime
	}
	select {
	case <-time.After(wait):
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// turn takes the next turn of a clock. Where the shared one cannot be reached,
// this process goes by its own: pace is a courtesy, and a token that runs out
// meanwhile would be the greater harm.
func (p *limiter) turn(ctx context.Context, name string, rate float64) (at time.Time) {
	every := time.Duration(float64(time.Second) / rate)
	earliest := time.Now().Add(-(redeemBurst - 1) * every)
	own := p.own.Turn(name, earliest, every)
	if p.shared == nil {
		return own
	}
	err := within(ctx, storeTimeout, func(ctx context.Context) (err error) {
		at, err = p.shared.Turn(ctx, name, earliest, every)
		return err
	})
	if err != nil {
		p.log.WarnContext(ctx, "the shared pace cannot be reached; this process keeps to its own", "pace", name, "error", err)
		return own
	}
	return at
}

// giveBack leaves a turn that was not needed to the next one who asks.
func (p *limiter) giveBack(environment string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spare[environment] = min(p.spare[environment]+1, redeemBurst)
}

func (p *limiter) takeSpare(environment string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spare[environment] == 0 {
		return false
	}
	p.spare[environment]--
	return true
}

// ownPace is the pace of one process.
type ownPace struct {
	mu   sync.Mutex
	next map[string]time.Time
}

func (p *ownPace) Turn(name string, earliest time.Time, every time.Duration) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.next[name]
	if at.Before(earliest) {
		at = earliest
	}
	p.next[name] = at.Add(every)
	return at
}

// timeLeft reports whether after wait there is still time in this run to wait
// for an answer and save it.
func (s Settings) timeLeft(ctx context.Context, wait time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline)-wait >= s.RedeemTimeout+saveReserve
}
