package fsck

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// answers checks the saved responses.
func (x *examination) answers(ctx context.Context) error {
	var successors []rotation.TokenResponse
	for _, m := range x.responses {
		before := len(x.findings)
		role := rotation.RoleOf(x.rec, m)
		x.place(m, role)
		if len(x.findings) == before && role != rotation.RoleOrphan {
			if err := x.open(ctx, m, role); err != nil {
				return err
			}
		}
		if len(x.findings) > before && role != rotation.RoleCurrent {
			x.damaged = append(x.damaged, m.Key)
		}
		if role == rotation.RoleSuccessor && m.State != rotation.Rejected && x.past(m.SavedAt) {
			successors = append(successors, m)
		}
	}
	switch {
	case len(successors) > 1:
		x.found(TwoSuccessors, "%d saved responses succeed the current pair: %s and %s", len(successors),
			name(successors[0].Key), name(successors[1].Key))
	case len(successors) == 1:
		x.undecided(successors[0])
	}
	for _, m := range x.responses {
		if rotation.RoleOf(x.rec, m) == rotation.RoleConsent {
			x.undecided(m)
		}
	}
	return nil
}

// place compares the fields of a response with the place where it is stored.
func (x *examination) place(m rotation.TokenResponse, role rotation.Role) {
	r := x.rec
	switch {
	case m.Connection != r.Connection:
		x.found(ResponseOfOtherConnection, "the response %s belongs to %s", name(m.Key), m.Connection)
	case m.Stack != r.Stack:
		x.found(ResponseOfOtherStack, "the response %s belongs to the installation %q", name(m.Key), m.Stack)
	case !slices.Contains([]rotation.ResponseState{rotation.Saved, rotation.Quarantined, rotation.Rejected}, m.State):
		x.found(ResponseStateUnknown, "the response %s has the state %q", name(m.Key), m.State)
	case m.State != rotation.Saved && m.Reason == "":
		x.found(ReasonMissing, "the response %s is %s without a reason", name(m.Key), m.State)
	case m.Key.Epoch > r.Epoch+1:
		x.found(EpochAhead, "the response %s belongs to an epoch that cannot have begun; the row is in epoch %d", name(m.Key),
			r.Epoch)
	case m.Key.Epoch == r.Epoch && m.Key.Generation > r.Generation+1:
		x.found(GenerationAhead, "the response %s belongs to a generation that cannot exist yet; the row is at %d.%d",
			name(m.Key), r.Epoch, r.Generation)
	case x.ahead(m.SavedAt, 0):
		x.found(SavedAhead, "the response %s was saved at %s, which is in the future", name(m.Key), stamp(m.SavedAt))
	case role == rotation.RoleOrphan:
		x.orphan(m)
	}
}

// orphan checks that a response that can no longer be decided is revoked. It may have
// become an orphan long after it was saved.
func (x *examination) orphan(m rotation.TokenResponse) {
	since := later(m.SavedAt, x.endOf(m), x.waitOf(rotation.Revoke, m.Key))
	if x.past(since) {
		x.found(OrphanLives, "the response %s, saved at %s, can no longer be decided but is not revoked", name(m.Key),
			stamp(m.SavedAt))
	}
}

// undecided checks that a saved response is decided.
func (x *examination) undecided(m rotation.TokenResponse) {
	if m.State != rotation.Saved || slices.Contains(x.damaged, m.Key) {
		return
	}
	since := later(m.SavedAt, x.waitOf(rotation.Decide, m.Key))
	if a := x.rec.ConsentAttempt; a != nil {
		since = later(since, a.Until.Add(x.Settings.Quiet))
	}
	if x.past(since) {
		x.found(Undecided, "the response %s was saved at %s but is not decided", name(m.Key), stamp(m.SavedAt))
	}
}

// waitOf returns the end of a failed step's wait; zero if there is none.
func (x *examination) waitOf(step rotation.Step, key rotation.ResponseKey) (end time.Time) {
	for _, f := range x.rec.Failures {
		if f.Step == step && f.Response == key {
			end = f.NextAt
		}
	}
	return end
}

// open opens a response that may be needed.
func (x *examination) open(ctx context.Context, m rotation.TokenResponse, role rotation.Role) error {
	o, ok, err := x.opening(ctx, m)
	switch {
	case err != nil:
		return err
	case ok:
		x.opened[m.Key] = o
	case x.opener == nil || x.closed != "":
	case x.sealedFor(ctx, m) != "":
		x.found(SealedForOther, "the bytes of the response %s were sealed for %s", name(m.Key), x.sealedFor(ctx, m))
	case role == rotation.RoleCurrent:
		x.found(CurrentUnopenable, "the response %s of the current pair cannot be opened", name(m.Key))
	default:
		x.found(ResponseUnopenable, "the response %s cannot be opened", name(m.Key))
	}
	return nil
}

// opening opens m. It records that m cannot be opened for lack of a permission.
func (x *examination) opening(ctx context.Context, m rotation.TokenResponse) (o rotation.Opened, ok bool, err error) {
	switch {
	case x.opener == nil:
		x.closed = "there is no key that opens saved responses"
		return o, false, nil
	case x.closed != "":
		return o, false, nil
	}
	o, err = x.opener.Open(ctx, m)
	switch {
	case err == nil:
		return o, true, nil
	case errors.Is(err, rotation.ErrUnsealable):
		return o, false, nil
	case ctx.Err() != nil:
		return o, false, err
	}
	x.closed = err.Error()
	return o, false, nil
}

// sealedFor returns the other connection for which the bytes of m were sealed, if any.
func (x *examination) sealedFor(ctx context.Context, m rotation.TokenResponse) string {
	for _, o := range x.records {
		keys := []rotation.ResponseKey{m.Key}
		if o.Current != nil {
			keys = append(keys, o.Current.Response)
		}
		if o.Ancestor != nil {
			keys = append(keys, *o.Ancestor)
		}
		for _, key := range keys {
			if o.Connection == x.rec.Connection && key == m.Key {
				continue
			}
			m.Connection, m.Key = o.Connection, key
			if _, err := x.opener.Open(ctx, m); err == nil {
				return o.Connection.String()
			}
		}
	}
	return ""
}
