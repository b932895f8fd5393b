package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// publish makes the secret store show the current pair. Any run can repeat each action
// at any time: the same response gives the same bytes under the same id, and the label
// only moves up. After a crash anywhere, the row is still unpublished, so the next run
// publishes again.
func (t *reconciliation) publish(ctx context.Context) (*ConnectionReport, error) {
	cur := *t.rec.Current
	value, id, err := t.projection(ctx, cur)
	if err != nil {
		return t.openFailed(ctx, Publish, ResponseKey{}, err)
	}
	if id != cur.VersionID { // another release of this program makes other bytes: record the new id first
		t.rec.Current.VersionID = id
		return nil, t.write(ctx, Change{})
	}
	for wait := time.Second; ; wait = min(2*wait, 15*time.Second) {
		seen, err := t.secretSeen(ctx)
		if err == nil && seen.adopt != nil {
			return nil, t.adopt(ctx, *seen.adopt)
		}
		if err == nil && seen.foreign {
			t.notifyOfDrift(ctx, seen)
		}
		if err == nil {
			err = t.show(ctx, seen, id, value)
		}
		if err == nil {
			return nil, t.published(ctx, id, seen.current.ID != id)
		}
		if classOfSecret(err) == classConfig || !t.retriesPublish(ctx, wait) || t.sleep(ctx, wait) != nil {
			return t.secretFailure(ctx, Publish, err)
		}
	}
}

// secretSeen returns what this run saw in the secret before it presented the refresh
// token, once; then it looks again. If the secret has changed since, moving AWSCURRENT is
// refused, because the move names the version that it replaces.
func (t *reconciliation) secretSeen(ctx context.Context) (secretView, error) {
	if seen := t.seen; seen != nil && t.obtainedCurrent() {
		t.seen = nil
		return *seen, nil
	}
	return t.checkSecret(ctx)
}

// retriesPublish reports whether this run tries to publish again after a wait, because
// readers have no live token until then. If several runs handle one connection, only the
// run that obtained the pair or was requested to publish it does.
func (t *reconciliation) retriesPublish(ctx context.Context, wait time.Duration) bool {
	if !t.obtainedCurrent() && !t.publishOnly {
		return false
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(saveAtMost - time.Since(t.begun))
	}
	return time.Until(deadline) > wait+publishReserve
}

// publishReserve is the time that a run keeps after its last try to publish.
const publishReserve = 20 * time.Second

// projection returns the bytes to publish and their id.
func (t *reconciliation) projection(ctx context.Context, cur Current) (token.Secret, string, error) {
	i := slices.IndexFunc(t.responses, func(m TokenResponse) bool { return m.Key == cur.Response })
	if i < 0 {
		return token.Secret{}, "", fmt.Errorf("publishing %s: the response of its current pair is not in the ledger", t.conn)
	}
	body, err := t.open(ctx, t.responses[i])
	if err != nil {
		return token.Secret{}, "", fmt.Errorf("publishing %s: %w", t.conn, err)
	}
	pair := t.engine.issuer.Parse(body).Pair
	pair.Lifetime = t.responses[i].lifetime(pair)
	value, err := project(t.responses[i], pair).Encode()
	if err != nil {
		return token.Secret{}, "", fmt.Errorf("publishing %s: %w", t.conn, err)
	}
	return value, token.VersionID(value), nil
}

// show puts the version if it is missing and moves AWSCURRENT to it.
func (t *reconciliation) show(ctx context.Context, seen secretView, id string, value token.Secret) error {
	if seen.current.ID == id {
		return nil
	}
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) error {
		if seen.absent {
			return t.run.secrets.Create(ctx, t.conn, id, value)
		}
		return t.run.secrets.Put(ctx, t.conn, id, value)
	})
	if err != nil {
		return fmt.Errorf("putting the new version of %s: %w", t.conn, err)
	}
	if seen.absent || seen.current.ID == "" { // the first version gets AWSCURRENT automatically
		return nil
	}
	err = within(ctx, 2*storeTimeout, func(ctx context.Context) error {
		return t.run.secrets.Promote(ctx, t.conn, id, seen.current.ID)
	})
	if err != nil {
		return fmt.Errorf("moving AWSCURRENT of %s: %w", t.conn, err)
	}
	return nil
}

// published writes that the secret store shows the current pair, and buries the
// ancestor. If sweeps alone would come too late, it also requests a follow-up. The run
// that moved AWSCURRENT requests it before the write: after a crash in between, no other run
// would request it. A run that only records what another run published requests it after the write, so that a
// table that takes no writes does not multiply the messages in the queue.
func (t *reconciliation) published(ctx context.Context, id string, shown bool) error {
	cur := *t.rec.Current
	var unsent error
	if shown {
		unsent = t.requestNext(ctx, cur)
	}
	change := Change{History: []Event{{Kind: "published", Attempt: cur.Response.Attempt, Detail: "version " + id}}}
	if a := t.rec.Ancestor; a != nil {
		if has(t.responses, *a) {
			change.Bury = []ResponseKey{*a}
		}
		t.rec.Ancestor = nil
	}
	if t.rec.Published != id { // whichever run put it: an earlier one may have died before it could count the put
		t.rec.Puts = append(t.recentPuts(), t.engine.clock().Unix())
	}
	t.rec.Published = id
	t.rec.forget(func(f Failure) bool { return f.Step == Publish })
	if err := t.write(ctx, change); err != nil {
		return err
	}
	if t.did == "" {
		t.did = Published
	}
	if !shown {
		unsent = t.requestNext(ctx, cur)
	}
	for wait := 5 * time.Second; unsent != nil && t.retriesPublish(ctx, wait) &&
		t.sleep(ctx, wait) == nil; wait = min(2*wait, 30*time.Second) {
		unsent = t.requestNext(ctx, cur) // if all fail, the row is due at that time anyway
	}
	return nil
}

// requestNext requests the run that replaces the pair, if no sweep comes in time. If the
// clocks differ, the delay is the usable life of the pair, and the queue measures it.
func (t *reconciliation) requestNext(ctx context.Context, cur Current) error {
	at := t.engine.settings.ensureAt(t.conn, cur)
	if at.IsZero() {
		return nil
	}
	delay := at.Sub(t.engine.clock())
	if cur.clocksDiffer() {
		delay = at.Sub(cur.begun())
	}
	return t.run.requests.send(ctx, Request{Op: "ensure", Connection: t.conn.String(),
		MinTTLSeconds: int64(margin(cur.lifetime()).Seconds()) + 1,
		Epoch:         t.rec.Epoch, Generation: t.rec.Generation, NotBefore: at.UTC()}, delay)
}

// recentPuts are the puts that still count against the secret store's limit.
func (t *reconciliation) recentPuts() []int64 {
	if t.engine.settings.PutsPerDay == 0 {
		return nil
	}
	return recentPuts(t.rec, t.engine.clock())
}

// secretFailure makes the step wait. A failure that only a person can fix is a
// configuration error.
func (t *reconciliation) secretFailure(ctx context.Context, step Step, err error) (*ConnectionReport, error) {
	wait := time.Duration(0)
	if step == Publish {
		wait = 30 * time.Second // readers have no live token until then
	}
	return t.failure(ctx, step, ResponseKey{}, classOfSecret(err), wait, err)
}

func classOfSecret(err error) string {
	if _, other := errors.AsType[*otherStackError](err); other || errors.Is(err, ErrSecretDeleted) {
		return classConfig
	}
	return classStore
}
