package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// publish makes the secret store show the current pair. Every action in it can be
// repeated by anybody at any time: the same response gives the same bytes under the
// same id, and the label only moves up. A crash anywhere leaves the row
// unpublished, so the next run does it again.
func (t *reconciliation) publish(ctx context.Context) (*ConnectionReport, error) {
	cur := *t.rec.Current
	value, id, err := t.projection(ctx, cur)
	if err != nil {
		return t.openFailed(ctx, Publish, ResponseKey{}, err)
	}
	if id != cur.VersionID { // another release of this program publishes other bytes: agree on them first
		t.rec.Current.VersionID = id
		return nil, t.write(ctx, Change{})
	}
	for wait := time.Second; ; wait = min(2*wait, 15*time.Second) {
		seen, err := t.checkSecret(ctx)
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
		if classOfSecret(err) == classConfig || !t.retriesPublish(ctx, wait) || t.run.sleep(ctx, wait) != nil {
			return t.secretFailure(ctx, Publish, err)
		}
	}
}

// retriesPublish reports whether this run tries to publish again after a wait: readers
// have no live token until then. Of the runs that meet at one connection only the
// one that brought the pair, or was asked to publish it, does.
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

// publishReserve is the time a run keeps for ending after its last try to publish.
const publishReserve = 20 * time.Second

// projection gives the bytes to publish, and their id.
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

// show puts the version where it is missing and moves AWSCURRENT onto it.
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
	if seen.absent || seen.current.ID == "" { // the first version is current by itself
		return nil
	}
	err = within(ctx, 2*storeTimeout, func(ctx context.Context) error {
		return t.run.secrets.Promote(ctx, t.conn, id,
			seen.current.ID)
	})
	if err != nil {
		return fmt.Errorf("moving AWSCURRENT of %s: %w", t.conn, err)
	}
	return nil
}

// published writes that the secret store shows the current pair; the ancestor's
// bytes go away with it. Where sweeps alone would come too late, a follow-up is
// requested first by the run that has shown it: not sent, it would be missed. A run
// that only writes what another one has shown requests it afterwards, so that a
// table that takes no writes does not multiply what is in the queue.
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
	if t.rec.Published != id { // by whichever run it was put: an earlier one may have died before it could count
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
		t.run.sleep(ctx, wait) == nil; wait = min(2*wait, 30*time.Second) {
		unsent = t.requestNext(ctx, cur) // else the row is due when it would have come
	}
	return nil
}

// requestNext requests the run that replaces the pair, if no sweep comes in time. The
// queue measures the time where the clocks differ.
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

// recentPuts are those that still count against the secret store's limit.
func (t *reconciliation) recentPuts() []int64 {
	if t.engine.settings.PutsPerDay == 0 {
		return nil
	}
	return recentPuts(t.rec, t.engine.clock())
}

// secretFailure lets the step wait. What only a person can mend is a
// configuration fault.
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
