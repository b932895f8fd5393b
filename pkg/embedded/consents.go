package embedded

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/invitations"
)

// rowsKept is how long after its expiry an invitation or a state stays, so that a late
// visitor sees why it no longer works.
const rowsKept = 30 * 24 * time.Hour

// Consents keeps invitations and states. It has only hashes of their links and
// parameters.
type Consents struct{ s *Store }

var _ invitations.Store = Consents{}

// Consents returns the store's invitations.Store.
func (s *Store) Consents() Consents { return Consents{s} }

// CreateInvitation implements invitations.Store.
func (k Consents) CreateInvitation(ctx context.Context, i invitations.Invitation) error {
	err := k.s.write(ctx, "storing an invitation for "+i.Connection.String(), func(tx *sql.Tx) error {
		return insert(ctx, tx, "invitation", i.Hash, i.CreatedAt, i,
			`INSERT INTO invitation (hash, json, created_at, expires_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			i.CreatedAt.UnixMicro(), i.ExpiresAt.UnixMicro())
	})
	if err == nil {
		_ = k.s.deleteExpired(ctx, i.CreatedAt) // if it fails, the next invitation tries again
	}
	return err
}

// Invitation implements invitations.Store.
func (k Consents) Invitation(ctx context.Context, hash string) (i invitations.Invitation, err error) {
	err = k.s.read(ctx, "reading an invitation", func(tx *sql.Tx) (err error) {
		i, err = loadInvitation(ctx, tx, hash)
		return err
	})
	return i, err
}

// Invitations implements invitations.Store.
func (k Consents) Invitations(ctx context.Context, now time.Time) ([]invitations.Invitation, error) {
	list, err := selectJSON[invitations.Invitation](ctx, k.s.db,
		`SELECT json FROM invitation WHERE expires_at > ? ORDER BY created_at DESC, hash`, now.UnixMicro())
	return list, k.s.fault("listing the invitations", err)
}

// RevokeInvitation implements invitations.Store.
func (k Consents) RevokeInvitation(ctx context.Context, hash string, now time.Time) error {
	return k.s.write(ctx, "revoking an invitation", func(tx *sql.Tx) error {
		i, err := loadInvitation(ctx, tx, hash)
		if err != nil || !i.RevokedAt.IsZero() {
			return err
		}
		i.RevokedAt = now.UTC()
		return saveInvitation(ctx, tx, i)
	})
}

// Start implements invitations.Store.
func (k Consents) Start(ctx context.Context, s invitations.State) error {
	return k.s.write(ctx, "starting the consent of "+s.Connection.String(), func(tx *sql.Tx) error {
		i, err := loadInvitation(ctx, tx, s.Invitation)
		if err != nil {
			return err
		}
		if !i.Usable(s.CreatedAt) {
			return invitations.ErrSpent
		}
		i.Starts++
		if err := saveInvitation(ctx, tx, i); err != nil {
			return err
		}
		return insert(ctx, tx, "state", s.Hash, s.CreatedAt, s,
			`INSERT INTO state (hash, json, nonce, expires_at) VALUES (?, ?, '', ?) ON CONFLICT DO NOTHING`,
			s.ExpiresAt.UnixMicro())
	})
}

// State implements invitations.Store.
func (k Consents) State(ctx context.Context, hash string) (s invitations.State, err error) {
	err = k.s.read(ctx, "reading a state", func(tx *sql.Tx) (err error) {
		s, _, err = loadState(ctx, tx, hash)
		return err
	})
	return s, err
}

// exchangeTakes is longer than a callback may take to exchange a code and save its answer.
const exchangeTakes = 2 * time.Minute

// Consume implements invitations.Store. The code of the state is exchanged next, so room
// for the answer is reserved first.
func (k Consents) Consume(ctx context.Context, hash, cookie, environment, nonce string,
	now time.Time) (invitations.State, error) {
	var s invitations.State
	err := k.s.write(ctx, "consuming a state", func(tx *sql.Tx) (err error) {
		var consumedBy string
		s, consumedBy, err = loadState(ctx, tx, hash)
		switch {
		case errors.Is(err, invitations.ErrNotFound):
			return invitations.ErrRefused
		case err != nil:
			return err
		case cookie == "" || subtle.ConstantTimeCompare([]byte(cookie), []byte(s.Cookie)) != 1 ||
			s.Environment != environment:
			return invitations.ErrRefused
		case !s.ConsumedAt.IsZero() && (nonce == "" || consumedBy != nonce):
			return invitations.ErrRefused
		case !s.ConsumedAt.IsZero():
			return nil // a repetition of the same call
		case !now.Before(s.ExpiresAt):
			return invitations.ErrRefused
		}
		s.ConsumedAt = now.UTC()
		if err := saveState(ctx, tx, s, nonce); err != nil {
			return err
		}
		return k.s.reserve.claim(ctx, tx, s.Connection, stateClaim(hash), now.Add(exchangeTakes))
	})
	if err != nil {
		return invitations.State{}, k.s.reserve.explain(err)
	}
	return s, nil
}

// Conclude implements invitations.Store. ErrNotFound.
func (k Consents) Conclude(ctx context.Context, s invitations.State, result string, used bool, now time.Time) error {
	return k.s.write(ctx, "concluding the consent of "+s.Connection.String(), func(tx *sql.Tx) error {
		stored, nonce, err := loadState(ctx, tx, s.Hash)
		if err != nil {
			return err
		}
		all, err := claims(ctx, tx)
		if err != nil {
			return err
		}
		mine := func(c claim) bool { return c.name == stateClaim(s.Hash) }
		if _, err := k.s.reserve.release(ctx, tx, all, mine); err != nil {
			return err
		}
		stored.Result = result
		if err := saveState(ctx, tx, stored, nonce); err != nil || !used {
			return err
		}
		i, err := loadInvitation(ctx, tx, stored.Invitation)
		if err != nil || !i.UsedAt.IsZero() {
			return err
		}
		i.UsedAt = now.UTC()
		return saveInvitation(ctx, tx, i)
	})
}

// insert adds a row to table and removes rows long past their expiry. The first two
// columns in query are the hash and the JSON of v.
func insert(ctx context.Context, tx *sql.Tx, table, hash string, now time.Time, v any, query string,
	rest ...any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	result, err := tx.ExecContext(ctx, query, append([]any{hash, string(text)}, rest...)...)
	if err != nil {
		return err
	}
	if err := expectOne(result, fmt.Errorf("its hash is already in use by another %s", table)); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE expires_at < ?`, now.Add(-rowsKept).UnixMicro())
	return err
}

func loadInvitation(ctx context.Context, tx *sql.Tx, hash string) (i invitations.Invitation, err error) {
	list, err := selectJSON[invitations.Invitation](ctx, tx, `SELECT json FROM invitation WHERE hash = ?`, hash)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("the invitation is %w", invitations.ErrNotFound)
	}
	if err != nil {
		return i, err
	}
	return list[0], nil
}

func saveInvitation(ctx context.Context, tx *sql.Tx, i invitations.Invitation) error {
	text, err := json.Marshal(i)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE invitation SET json = ? WHERE hash = ?`, string(text), i.Hash)
	return err
}

// loadState also returns the nonce of the call that consumed the state.
func loadState(ctx context.Context, tx *sql.Tx, hash string) (s invitations.State, nonce string, err error) {
	var text string
	err = tx.QueryRowContext(ctx, `SELECT nonce, json FROM state WHERE hash = ?`, hash).Scan(&nonce, &text)
	if errors.Is(err, sql.ErrNoRows) {
		return s, "", fmt.Errorf("the state is %w", invitations.ErrNotFound)
	} else if err != nil {
		return s, "", err
	}
	return s, nonce, json.Unmarshal([]byte(text), &s)
}

func saveState(ctx context.Context, tx *sql.Tx, s invitations.State, nonce string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE state SET nonce = ?, json = ? WHERE hash = ?`, nonce, string(text), s.Hash)
	return err
}
