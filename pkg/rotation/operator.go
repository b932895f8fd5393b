package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Disconnect takes c out of use. After its one write, no run presents or publishes
// anything of c, and its pairs are revoked. If the access token has expired or soon
// will, the pair is rotated first, because some servers do not revoke an expired one.
// The detail of the report says if that failed. The caller deletes the secret itself. The
// row of another installation is an error.
func (r *Rotator) Disconnect(ctx context.Context, c token.Connection) (Report, error) {
	started := time.Now()
	rec, _, err := r.engine.load(ctx, c)
	if err == nil {
		err = rec.CheckStack(r.engine.settings.Stack)
	}
	if err != nil {
		return Report{}, err
	}
	detail := ""
	if cur := rec.Current; rec.Status == Active && !rec.ServiceAccount && cur != nil &&
		cur.ExpiresAt.Sub(r.engine.clock()) < time.Minute {
		first := r.newRun().connection(ctx, c, situation{force: true}, nil)
		if first.Outcome != Rotated {
			detail = fmt.Sprintf("could not be rotated first (%s), so the server may not have revoked an expired pair",
				first.Outcome)
		}
	}
	_, err = r.engine.update(ctx, c, func(rec *Record, _ []TokenResponse) (Change, bool, error) {
		if rec.Revision == "" || rec.Status == Disconnected {
			return Change{}, false, nil
		}
		return Change{History: rec.disconnect(r.engine.clock().Add(r.engine.settings.Lease), r.engine.settings.Quiet)}, true,
			nil
	})
	if err != nil {
		return Report{}, err
	}
	report := r.newRun().connection(ctx, c, situation{publishOnly: true}, nil)
	if report.Detail == "" {
		report.Detail = detail
	}
	return newReport("disconnect", started, []ConnectionReport{report}), nil
}

// disconnect takes a connection out of use. Even without an attempt, a consent may be on
// its way until the given time. The process that exchanges its code may die right after
// saving the pair, and nothing else makes a disconnected row due.
func (r *Record) disconnect(until time.Time, quiet time.Duration) []Event {
	history := append(r.endedBy(""), Event{Kind: "disconnected", Epoch: r.Epoch + 1})
	r.endEpoch(until, quiet)
	r.Epoch, r.Generation, r.Status = r.Epoch+1, 0, Disconnected
	r.Current, r.Ancestor, r.Published, r.Failures, r.Refusal, r.NoticePending = nil, nil, "", nil, nil, false
	return history
}

// ErrNothingQuarantined: the connection has no answer to release or discard, that
// is, none that is quarantined or cannot be opened.
var ErrNothingQuarantined = errors.New("nothing is quarantined")

// Release ends a quarantine: a person names the right refresh token of the quarantined
// answer. The token must occur in the answer.
func (r *Rotator) Release(ctx context.Context, c token.Connection, refresh token.Secret) (Report, error) {
	keys := newKeyring(r.sealer)
	return r.settle(ctx, "release", c, "replaced by the refresh token that a person named",
		func(m TokenResponse) ([]TokenResponse, error) {
			var key *dataKey
			var body token.Secret
			err := within(ctx, 2*storeTimeout, func(ctx context.Context) (err error) {
				if body, err = keys.open(ctx, m.Sealed, c, m.Key); err != nil {
					return err
				}
				key, err = keys.ready(ctx)
				return err
			})
			if err != nil {
				return nil, err
			}
			if refresh.IsZero() || !strings.Contains(body.Reveal(), refresh.Reveal()) {
				return nil, fmt.Errorf("releasing %s: the quarantined answer does not contain that refresh token", c)
			}
			if body, err = importBody(refresh); err != nil {
				return nil, err
			}
			m.State, m.Reason, m.SavedAt = Saved, "", r.engine.clock().UTC().Truncate(time.Millisecond)
			m.Key.Attempt = newID()
			m.Sealed = key.seal(body, c, m.Key)
			return []TokenResponse{m}, nil
		})
}

// Discard ends a quarantine by giving up the quarantined answer. Its attempt stays
// open, so the old refresh token is presented again after the quiet period. It also
// gives up an answer that cannot be opened. If such an answer can be opened again, it is
// not given up: ErrNothingQuarantined, and the next run uses it.
func (r *Rotator) Discard(ctx context.Context, c token.Connection) (Report, error) {
	keys := newKeyring(r.sealer)
	return r.settle(ctx, "discard", c, "discarded by a person", func(m TokenResponse) ([]TokenResponse, error) {
		if m.State == Quarantined {
			return nil, nil
		}
		err := within(ctx, storeTimeout, func(ctx context.Context) error {
			_, err := keys.open(ctx, m.Sealed, c, m.Key)
			return err
		})
		if err == nil {
			return nil, fmt.Errorf("%s: the saved answer can be opened again, and the next run uses it: %w", c,
				ErrNothingQuarantined)
		}
		return nil, nil
	})
}

// DiscardAll calls Discard for each of several connections. step is called after each
// one.
func (r *Rotator) DiscardAll(ctx context.Context, several []token.Connection, step func()) Report {
	started := time.Now()
	var reports []ConnectionReport
	for _, c := range several {
		report, err := r.Discard(ctx, c)
		if err != nil {
			report.Connections = []ConnectionReport{{Connection: c, Outcome: Failed, Detail: err.Error()}}
		}
		reports = append(reports, report.Connections...)
		step()
	}
	return newReport("discard", started, reports)
}

// settle rejects the stuck answer and adds its replacement, both in one write. A run
// then continues from there.
func (r *Rotator) settle(ctx context.Context, op string, c token.Connection, reason string,
	instead func(TokenResponse) ([]TokenResponse, error)) (Report, error) {
	started := time.Now()
	for range maxSteps {
		rec, responses, err := r.engine.load(ctx, c)
		if err != nil {
			return Report{}, err
		}
		m, added, err := TokenResponse{}, []TokenResponse(nil), fmt.Errorf("%s: %w", c, ErrNothingQuarantined)
		for _, m = range stuck(rec, responses) {
			if added, err = instead(m); !errors.Is(err, ErrNothingQuarantined) {
				break
			}
		}
		if err != nil {
			return Report{}, err
		}
		_, _, err = r.engine.mark(ctx, rec, responses, m, Rejected, reason, added...)
		if errors.Is(err, ErrConflict) { // such as a sweep that judged it again
			continue
		}
		if err != nil {
			return Report{}, err
		}
		return newReport(op, started, []ConnectionReport{r.newRun().connection(ctx, c, situation{}, nil)}), nil
	}
	return Report{}, fmt.Errorf("the row of %s kept changing: %w", c, ErrConflict)
}

// HasQuarantined reports whether there is something to release or to discard: a
// response that is quarantined or cannot be opened.
func HasQuarantined(rec Record, responses []TokenResponse) bool {
	return len(stuck(rec, responses)) > 0
}

// stuck returns the responses that are quarantined or may be impossible to open, those
// of the current epoch first. A response that waits for a store or the server is not stuck.
func stuck(rec Record, responses []TokenResponse) (found []TokenResponse) {
	for _, m := range slices.Backward(candidates(rec, responses)) {
		f := rec.failure(Decide, m.Key)
		if m.State == Quarantined || f != nil && f.Class == classConfig {
			found = append(found, m)
		}
	}
	return found
}
