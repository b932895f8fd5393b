package tokensource

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	// renewTimeout is for one question to the rotate function: its redeem timeout is
	// 20 s unless set, and it may have to start and to save.
	renewTimeout = 40 * time.Second
	// A question follows the one before no sooner than minAskPace, and after
	// answers that brought nothing twice as late each time up to maxAskPace.
	minAskPace = 10 * time.Second
	maxAskPace = 5 * time.Minute
)

// Renewer has a connection's token renewed by whoever may. Package ensure has
// the one that asks the rotate function.
type Renewer interface {
	// Renew returns nil if a token with at least min of life left is in the secret
	// now, as far as there can be one. Errors wrap ErrNeedsConsent, ErrNotFound or
	// ErrRotationInProgress where that is the reason.
	Renew(ctx context.Context, connection token.Connection, min time.Duration) error
}

// WithEnsure has a token renewed that is found with less than min of life
// left, or none, so that tokens that live shorter than the time between two
// scheduled rotations are there when they are needed. More than half of a
// token's life is never asked for. A living token is served whatever the answer is;
// if there is none, the error tells more than the secret alone can.
func WithEnsure(r Renewer, min time.Duration) Option {
	return func(s *settings) { s.renew, s.min = r, min }
}

// ensurer decides when the renewer is asked. Its last three fields are guarded by the source's mu.
type ensurer struct {
	renew Renewer
	min   time.Duration

	notBefore time.Time // of the next question
	misses    int       // answers in a row that brought nothing
	refusal   error     // the last answer, until there is progress
}

func (e *ensurer) may(now time.Time) bool { return e.renew != nil && !now.Before(e.notBefore) }

// least is the life that the token of d must have left, and what is asked for.
func (e *ensurer) least(d token.Document) time.Duration {
	if e.renew == nil {
		return 0
	}
	return max(min(e.min, lifetime(d)/2), time.Second) // the rotate function's unit
}

// wants reports whether a read brought too little life. If the secret cannot be
// read, nobody could read a better one.
func (e *ensurer) wants(d token.Document, err error) bool {
	if err != nil {
		return errors.Is(err, ErrNotFound)
	}
	return time.Until(d.ExpiresAt) < e.least(d)
}

func (e *ensurer) ask(ctx context.Context, c token.Connection, d token.Document) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	if err := e.renew.Renew(ctx, c, e.least(d)); err != nil {
		return fmt.Errorf("asking for a new token of %s: %w", c, err)
	}
	return nil
}

// settle takes in what a look brought and returns the error that tells most of why
// there is no better token.
func (e *ensurer) settle(f finding, progress bool, now time.Time) error {
	if progress {
		e.refusal = nil
	}
	if f.asked {
		e.refusal = f.refusal
		e.notBefore = now.Round(0).Add(min(minAskPace<<e.misses, maxAskPace)) // by the wall clock: see held
		e.misses = min(e.misses+1, 10)
		if f.refusal == nil {
			e.misses = 0
		}
	}
	if e.refusal != nil && (f.err == nil || errors.Is(f.err, ErrNotFound)) {
		return e.refusal
	}
	return f.err
}
