package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Bounds of single calls. A store that hangs gets seconds, not all the time of the run.
const (
	storeTimeout = 4 * time.Second
	// saveReserve is the time a run keeps for saving an answer after the POST.
	saveReserve = 15 * time.Second
	// saveAtMost bounds saving where the caller has no deadline.
	saveAtMost = 5 * time.Minute
	// maxEscrow is the largest answer that fits a secret's version beside its envelope.
	maxEscrow = 24 << 10
)

// implausiblyLarge answers can be saved in the ledger only and are never published.
func implausiblyLarge(body token.Secret) bool { return len(body.Reveal()) > maxEscrow }

// engine is what a Rotator and Consents have in common: loading and writing a
// row, saving an answer, deciding on it, and notifying people.
type engine struct {
	ledger   Ledger
	apps     Applications
	issuer   Issuer
	notifier Notifier
	claims   *claims
	settings Settings
	log      *slog.Logger
	clock    func() time.Time
}

func newEngine(e engine, shared NoticeClaims) *engine {
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.clock == nil {
		e.clock = time.Now
	}
	e.claims = &claims{shared: shared, log: e.log, until: map[string]time.Time{}}
	return &e
}

// save keeps m in the first store that acknowledges it. It tries the ledger first and,
// after a failure, escrow (if there is one) and the ledger alternately. Canceling ctx
// does not end it; the deadline of ctx does, because the process is gone after it. It
// reports whether escrow was tried.
func (e *engine) save(ctx context.Context, m TokenResponse, escrow func(context.Context,
	TokenResponse) error) (tried bool, err error) {
	ctx, cancel := outlive(ctx, 3*time.Second) // which are for a notice if nothing can be saved
	defer cancel()
	wait := 100 * time.Millisecond
	for {
		err := within(ctx, storeTimeout, func(ctx context.Context) error { return e.ledger.SaveResponse(ctx, m) })
		if err == nil {
			return tried, nil
		}
		if escrow != nil {
			tried = true
			second := within(ctx, storeTimeout, func(ctx context.Context) error { return escrow(ctx, m) })
			if second == nil {
				return tried, nil
			}
			err = errors.Join(err, second)
		}
		select {
		case <-ctx.Done():
			return tried, fmt.Errorf("saving the answer for %s: %w", m.Connection, err)
		case <-time.After(wait):
			wait = min(2*wait, 2*time.Second)
		}
	}
}

// outlive returns a context that canceling ctx does not end. It ends reserve before the
// deadline of ctx, because the process is gone after that deadline.
func outlive(ctx context.Context, reserve time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(saveAtMost)
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(-reserve))
}

// load reads the record and the live responses of c.
func (e *engine) load(ctx context.Context, c token.Connection) (rec Record, responses []TokenResponse, err error) {
	err = within(ctx, storeTimeout, func(ctx context.Context) error {
		rec, responses, err = e.ledger.Load(ctx, c)
		return err
	})
	if err != nil {
		err = fmt.Errorf("loading %s: %w", c, err)
	}
	return rec, responses, err
}

// write makes rec the new row and returns it with the live responses as they are then.
// It derives DueAt and Quarantined from them.
func (e *engine) write(ctx context.Context, rec Record, responses []TokenResponse, change Change) (Record,
	[]TokenResponse, error) {
	now := e.clock()
	responses = applied(responses, change)
	rec.forget(func(f Failure) bool {
		if f.Response == (ResponseKey{}) {
			return f.Step == Revoke && rec.SearchAt.IsZero() // the search is over
		}
		return !has(responses, f.Response)
	})
	rec.DueAt, rec.Quarantined = e.settings.dueAt(rec, responses, now), quarantinedSuccessor(rec, responses)
	for i := range change.History {
		h := &change.History[i]
		h.At = now.UTC()
		if h.Epoch == 0 && h.Generation == 0 {
			h.Epoch, h.Generation = rec.Epoch, rec.Generation
		}
	}
	change.Record = rec
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) (err error) {
		rec.Revision, err = e.ledger.Write(ctx, change)
		return err
	})
	if err != nil {
		return rec, responses, fmt.Errorf("writing the row of %s: %w", rec.Connection, err)
	}
	return rec, responses, nil
}

// update loads the row of c, lets edit change it, and writes it. It repeats this while
// other writers change the row in between. edit returns false if there is nothing to
// write.
func (e *engine) update(ctx context.Context, c token.Connection, edit func(*Record, []TokenResponse) (Change, bool,
	error)) (Record, error) {
	for range maxSteps {
		rec, responses, err := e.load(ctx, c)
		if err != nil {
			return rec, err
		}
		rec = rec.clone()
		change, goOn, err := edit(&rec, responses)
		if err != nil || !goOn {
			return rec, err
		}
		if rec, _, err = e.write(ctx, rec, responses, change); !errors.Is(err, ErrConflict) {
			return rec, err
		}
	}
	return Record{}, fmt.Errorf("the row of %s kept changing: %w", c, ErrConflict)
}

// applied returns the responses as they are after the change.
func applied(responses []TokenResponse, change Change) []TokenResponse {
	var out []TokenResponse
	for _, m := range responses {
		if i := slices.IndexFunc(change.Mark, func(marked TokenResponse) bool { return marked.Key == m.Key }); i >= 0 {
			m = change.Mark[i]
		}
		out = append(out, m)
	}
	for _, m := range change.Copy {
		if !has(out, m.Key) {
			out = append(out, m)
		}
	}
	return slices.DeleteFunc(out, func(m TokenResponse) bool { return slices.Contains(change.Bury, m.Key) })
}

// has reports whether a response with that key is among them.
func has(responses []TokenResponse, key ResponseKey) bool {
	return slices.ContainsFunc(responses, func(m TokenResponse) bool { return m.Key == key })
}

// identify asks the issuer who owns the access token.
func (e *engine) identify(ctx context.Context, app Application, access token.Secret, company string) (id Identity,
	err error) {
	err = within(ctx, e.settings.RedeemTimeout, func(ctx context.Context) error {
		id, err = e.issuer.Identify(ctx, app, access, company)
		return err
	})
	return id, err
}

// endToken revokes the token at the issuer.
func (e *engine) endToken(ctx context.Context, app Application, t token.Secret) error {
	return within(ctx, e.settings.RedeemTimeout, func(ctx context.Context) error { return e.issuer.Revoke(ctx, app, t) })
}

// readApplication reads the app credentials of an environment.
func (e *engine) readApplication(ctx context.Context, environment string) (app Application, err error) {
	err = within(ctx, 2*storeTimeout, func(ctx context.Context) error {
		app, err = e.apps.Application(ctx, environment)
		return err
	})
	return app, err
}

// within calls f with a deadline of its own.
func within(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}

// timeLeft reports whether this run, after wait, still has the time to get an answer
// and save it.
func (s Settings) timeLeft(ctx context.Context, wait time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline)-wait >= s.RedeemTimeout+saveReserve
}
