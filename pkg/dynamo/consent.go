package dynamo

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/expression"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tokenturn/tokenturn/pkg/invitations"
)

// expiring has the fields of all rows that expire. Expires is in Unix nanoseconds, because
// conditions compare it and RFC 3339 texts do not sort.
type expiring struct {
	key
	Nonce   string `json:"nonce"`
	Expires int64  `json:"expires"`
	TTL     int64  `json:"ttl"`
}

func newExpiring(k key, nonce string, expires time.Time) expiring {
	return expiring{k, nonce, expires.UnixNano(), expires.Add(consentLife).Unix()}
}

type invitationRow struct {
	expiring
	listed
	Invitation invitations.Invitation `json:"invitation"`
}

type stateRow struct {
	expiring
	ConsumedBy string            `json:"consumed_by,omitempty"`
	State      invitations.State `json:"state"`
}

func unset(name string) expression.ConditionBuilder {
	return expression.Name(name).AttributeNotExists()
}

func unexpired(now time.Time) expression.ConditionBuilder {
	return expression.Name("expires").GreaterThan(expression.Value(now.UnixNano()))
}

// CreateInvitation implements invitations.Store.
func (t *Table) CreateInvitation(ctx context.Context, i invitations.Invitation) error {
	nonce := rand.Text()
	put, err := t.put(invitationRow{newExpiring(inviteKey(i.Hash), nonce, i.ExpiresAt),
		listed{inviteBucket, i.ExpiresAt.Unix()}, i}, absent)
	if err == nil {
		err = t.doPut(ctx, put)
	}
	if there, _ := refused(err, 0); err != nil && text(there, "nonce") != nonce {
		return fmt.Errorf("storing the invitation of %s: %w", i.Connection, err)
	}
	return nil
}

// Invitation implements invitations.Store.
func (t *Table) Invitation(ctx context.Context, hash string) (invitations.Invitation, error) {
	var row invitationRow
	if err := t.read(ctx, inviteKey(hash), &row); err != nil {
		return invitations.Invitation{}, fmt.Errorf("reading the invitation: %w", err)
	}
	return row.Invitation, nil
}

// Invitations implements invitations.Store.
func (t *Table) Invitations(ctx context.Context, now time.Time) ([]invitations.Invitation, error) {
	var found []invitations.Invitation
	for it, err := range t.listing(ctx, inviteBucket) {
		var row invitationRow
		if err == nil {
			err = decode(it, &row)
		}
		if err != nil {
			return nil, fmt.Errorf("listing the invitations of table %s: %w", t.name, err)
		}
		if now.Before(row.Invitation.ExpiresAt) {
			found = append(found, row.Invitation)
		}
	}
	slices.SortFunc(found, func(a, b invitations.Invitation) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.Hash, b.Hash))
	})
	return found, nil
}

// RevokeInvitation implements invitations.Store.
func (t *Table) RevokeInvitation(ctx context.Context, hash string, now time.Time) error {
	revoke, err := t.update(inviteKey(hash), once("invitation.revoked_at", now), present)
	if err == nil {
		_, err = t.doUpdate(ctx, revoke)
	}
	if anyRefused(err) {
		err = invitations.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("revoking the invitation: %w", err)
	}
	return nil
}

// once sets a time unless it is set.
func once(name string, now time.Time) expression.UpdateBuilder {
	return expression.Set(expression.Name(name), expression.IfNotExists(expression.Name(name),
		expression.Value(now.UTC())))
}

// Start implements invitations.Store: one transaction counts the start, if the
// invitation is usable, and stores the state.
func (t *Table) Start(ctx context.Context, s invitations.State) error {
	nonce := rand.Text()
	starts := expression.Name("invitation.starts")
	usable := unset("invitation.used_at").And(unset("invitation.revoked_at"), unexpired(s.CreatedAt),
		starts.LessThan(expression.Value(invitations.MaxStarts)))
	count, err := t.update(inviteKey(s.Invitation), expression.Set(starts, starts.Plus(expression.Value(1))), usable)
	if err != nil {
		return fmt.Errorf("starting the consent for %s: %w", s.Connection, err)
	}
	put, err := t.put(stateRow{expiring: newExpiring(stateKey(s.Hash), nonce, s.ExpiresAt), State: s}, absent)
	if err != nil {
		return fmt.Errorf("starting the consent for %s: %w", s.Connection, err)
	}
	err = t.transact(ctx, nonce, []types.TransactWriteItem{{Update: count}, {Put: put}})
	invitation, unusable := refused(err, 0)
	state, _ := refused(err, 1)
	switch {
	case err == nil, text(state, "nonce") == nonce:
		return nil
	case unusable && invitation == nil:
		err = invitations.ErrNotFound
	case unusable:
		err = invitations.ErrSpent
	}
	return fmt.Errorf("starting the consent for %s: %w", s.Connection, err)
}

// State implements invitations.Store.
func (t *Table) State(ctx context.Context, hash string) (invitations.State, error) {
	var row stateRow
	if err := t.read(ctx, stateKey(hash), &row); err != nil {
		return invitations.State{}, fmt.Errorf("reading the state: %w", err)
	}
	return row.State, nil
}

// Consume implements invitations.Store.
func (t *Table) Consume(ctx context.Context, hash, cookie, environment, nonce string, now time.Time) (invitations.State,
	error) {
	set := expression.Set(expression.Name("state.consumed_at"), expression.Value(now.UTC())).
		Set(expression.Name("consumed_by"), expression.Value(nonce))
	ours := unset("state.consumed_at").And(unexpired(now),
		expression.Name("state.cookie").Equal(expression.Value(cookie)),
		expression.Name("state.environment").Equal(expression.Value(environment)))
	consume, err := t.update(stateKey(hash), set, ours)
	if err != nil {
		return invitations.State{}, fmt.Errorf("consuming the state: %w", err)
	}
	consumed, err := t.doUpdate(ctx, consume)
	if there, no := refused(err, 0); no {
		if nonce == "" || text(there, "consumed_by") != nonce {
			return invitations.State{}, fmt.Errorf("consuming the state: %w", invitations.ErrRefused)
		}
		consumed, err = there, nil
	}
	var row stateRow
	if err == nil {
		err = decode(consumed, &row)
	}
	if err != nil {
		return invitations.State{}, fmt.Errorf("consuming the state: %w", err)
	}
	return row.State, nil
}

// Conclude implements invitations.Store. Repeating it is not an error.
func (t *Table) Conclude(ctx context.Context, s invitations.State, result string, used bool, now time.Time) error {
	record, err := t.update(stateKey(s.Hash), expression.Set(expression.Name("state.result"), expression.Value(result)),
		present)
	actions := []types.TransactWriteItem{{Update: record}}
	if used {
		use, useErr := t.update(inviteKey(s.Invitation), once("invitation.used_at", now), present)
		err = errors.Join(err, useErr)
		actions = append(actions, types.TransactWriteItem{Update: use})
	}
	if err == nil {
		err = t.transact(ctx, rand.Text(), actions)
	}
	if anyRefused(err) {
		err = invitations.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("concluding the consent for %s: %w", s.Connection, err)
	}
	return nil
}

// read decodes one item into row. ErrNotFound.
func (t *Table) read(ctx context.Context, k key, row any) error {
	it, err := t.get(ctx, k)
	switch {
	case err != nil:
		return err
	case it == nil:
		return invitations.ErrNotFound
	}
	return decode(it, row)
}
