package tokensource

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	// renewTimeout bounds one call of the rotate function: its redeem timeout is 20 s by
	// default, and it may also have to start and to save.
	renewTimeout = 40 * time.Second
	// Two calls are at least minAskInterval apart. After each answer that brought nothing
	// the interval doubles, up to maxAskInterval.
	minAskInterval = 10 * time.Second
	maxAskInterval = 5 * time.Minute
)

// Renewer asks for a connection's token to be renewed. Package ensure has the
// implementation that calls the rotate function.
type Renewer interface {
	// Renew returns nil if the secret now has a token with at least min of life left, or
	// with as much as a new token can have. Errors wrap ErrNeedsConsent, ErrNotFound or
	// ErrRotationInProgress if that is the reason.
	Renew(ctx context.Context, connection token.Connection, min time.Duration) error
}

// WithEnsure asks r to renew a token with less than min of life left, or a missing
// one, so that tokens that live shorter than the time between two scheduled rotations
// are available when they are needed. The source never asks for more than half of a
// token's life. It serves a valid token whatever the answer is; if there is none, the
// error says more than the secret alone can.
func WithEnsure(r Renewer, min time.Duration) Option {
	return func(s *settings) { s.renew, s.min = r, min }
}

// ensurer decides when to ask the renewer. The source's mu guards its last three fields.
type ensurer struct {
	renew Renewer
	min   time.Duration

	notBefore time.Time // of the next call
	misses    int       // answers in a row that brought nothing
	refusal   error     // the last answer, until there is progress
}

func (e *ensurer) may(now time.Time) bool { return e.renew != nil && !now.Before(e.notBefore) }

// least returns the remaining life that the token of d must have. It is also the life to ask for.
func (e *ensurer) least(d token.Document) time.Duration {
	if e.renew == nil {
		return 0
	}
	return max(min(e.min, lifetime(d)/2), time.Second) // the rotate function's unit
}

// wants reports whether a read token has too little life left. If the secret cannot be
// read, a better token could not be read either.
func (e *ensurer) wants(d token.Document, err error) bool {
	if err != nil {
		return errors.Is(err, ErrNotFound)
	}
	return !d.ExpiresAt.IsZero() && time.Until(d.ExpiresAt) < e.least(d)
}

func (e *ensurer) ask(ctx context.Context, c token.Connection, d token.Document) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	if err := e.renew.Renew(ctx, c, e.least(d)); err != nil {
		return fmt.Errorf("asking for a new token of %s: %w", c, err)
	}
	return nil
}

// settle records the result of a read and returns the error that best explains why
// there is no better token.
func (e *ensurer) settle(f finding, progress bool, now time.Time) error {
	if progress {
		e.refusal = nil
	}
	if f.asked {
		e.refusal = f.refusal
		e.notBefore = now.Round(0).Add(min(minAskInterval<<e.misses, maxAskInterval)) // by the wall clock; see cached
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
