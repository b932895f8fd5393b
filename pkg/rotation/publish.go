package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// publish makes the secret store show the current pair. Every action in it can be
// repeated by anybody at any time: the same response gives the same bytes under the
// same id, and the label only moves up. A crash anywhere leaves the row
// unpublished, so the next run does it again.
func (t *turn) publish(ctx context.Context) (*ConnectionReport, error) {
	cur := *t.rec.Current
	value, id, err := t.projection(ctx, cur)
	if err != nil {
		return t.failure(ctx, Publish, ResponseKey{}, classStore, 0, err)
	}
	if id != cur.VersionID { // another release of this program publishes other bytes: agree on them first
		t.rec.Current.VersionID = id
		return nil, t.write(ctx, Change{})
	}
	seen, err := t.checkSecret(ctx)
	if err != nil {
		return t.secretFailure(ctx, Publish, err)
	}
	if seen.adopt != nil {
		return nil, t.adopt(ctx, *seen.adopt)
	}
	if seen.foreign {
		t.tellDrift(ctx, seen)
	}
	put, err := t.show(ctx, seen, id, value)
	if err != nil {
		return t.secretFailure(ctx, Publish, err)
	}
	return nil, t.published(ctx, id, put)
}

// projection gives the bytes to publish, and their id.
func (t *turn) projection(ctx context.Context, cur Current) (token.Secret, string, error) {
	i := slices.IndexFunc(t.responses, func(m TokenResponse) bool { return m.Key == cur.Response })
	if i < 0 {
		return token.Secret{}, "", fmt.Errorf("publishing %s: the response of its current pair is not in the ledger", t.conn)
	}
	body, err := t.open(ctx, t.responses[i])
	if err != nil {
		return token.Secret{}, "", fmt.Errorf("publishing %s: %w", t.conn, err)
	}
	value, err := project(t.responses[i], t.issuer.Parse(body).Pair).Encode()
	if err != nil {
		return token.Secret{}, "", fmt.Errorf("publishing %s: %w", t.conn, err)
	}
	return value, token.VersionID(value), nil
}

// show puts the version where it is missing and moves AWSCURRENT onto it.
func (t *turn) show(ctx context.Context, seen secretView, id string, value token.Secret) (put bool, err error) {
	if seen.current.ID == id {
		return false, nil
	}
	err = within(ctx, 2*storeTimeout, func(ctx context.Context) error {
		if seen.absent {
			return t.secrets.Create(ctx, t.conn, id, value)
		}
		return t.secrets.Put(ctx, t.conn, id, value)
	})
	if err != nil {
		return false, fmt.Errorf("putting the new version of %s: %w", t.conn, err)
	}
	if seen.absent || seen.current.ID == "" { // the first version is current by itself
		return true, nil
	}
	err = within(ctx, 2*storeTimeout, func(ctx context.Context) error { return t.secrets.Promote(ctx, t.conn, id, seen.current.ID) })
	if err != nil {
		return true, fmt.Errorf("moving AWSCURRENT of %s: %w", t.conn, err)
	}
	return true, nil
}

// published writes that the secret store shows the current pair; the ancestor's bytes
// go away with it. Where sweeps alone would come too late, a follow-up is asked
// for first: sent twice it does no harm, not sent it would be missed.
func (t *turn) published(ctx context.Context, id string, put bool) error {
	cur := *t.rec.Current
	if at := t.settings.ensureAt(t.conn, cur); !at.IsZero() {
		now := t.clock()
		ttl := int64(margin(cur.lifetime()).Seconds()) + 1
		t.later(ctx, Request{Op: "ensure", Connection: t.conn.String(), MinTTLSeconds: ttl, Epoch: t.rec.Epoch,
			Generation: t.rec.Generation, NotBefore: at.UTC()}, at.Sub(now))
	}
	change := Change{History: []Event{{Kind: "published", Attempt: cur.Response.Attempt, Detail: "version " + id}}}
	if a := t.rec.Ancestor; a != nil {
		if slices.ContainsFunc(t.responses, func(m TokenResponse) bool { return m.Key == *a }) {
			change.Bury = []ResponseKey{*a}
		}
		t.rec.Ancestor = nil
	}
	t.rec.Published, t.rec.Failure = id, nil
	if put {
		t.rec.Puts = append(t.recentPuts(), t.clock().Unix())
	}
	if err := t.write(ctx, change); err != nil {
		return err
	}
	if t.did == "" {
		t.did = Published
	}
	return nil
}

// recentPuts are those that still count against the secret store's limit.
func (t *turn) recentPuts() []int64 {
	if t.settings.PutsPerDay == 0 {
		return nil
	}
	return recentPuts(t.rec, t.clock())
}

// vaultFailure lets the row rest. What only a person can mend is a
// configuration fault.
func (t *turn) secretFailure(ctx context.Context, step Step, err error) (*ConnectionReport, error) {
	class := classStore
	if _, other := errors.AsType[*otherStackError](err); other || errors.Is(err, ErrSecretDeleted) {
		class = classConfig
	}
	return t.failure(ctx, step, ResponseKey{}, class, 0, err)
}
