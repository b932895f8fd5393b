package embedded

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Deletions schedules the deletion of connections' secrets, and cancels it, as Secrets
// Manager does: a scheduled secret cannot be read or written. At the end of the recovery
// time it is overwritten by the next process that opens the store, or by the next secret
// of the connection.
type Deletions struct{ s *Store }

// Deletions returns the part of the store that disconnect and undo use.
func (s *Store) Deletions() Deletions { return Deletions{s} }

// Schedule makes the secret of c unreadable at once and deletes it after the recovery
// time. It returns the time of the deletion; a time that was scheduled before stays.
// rotation.ErrNoSecret.
func (d Deletions) Schedule(ctx context.Context, c token.Connection, recovery time.Duration) (at time.Time, err error) {
	err = d.s.write(ctx, "scheduling the deletion of the secret of "+c.String(), func(tx *sql.Tx) error {
		now := time.Now()
		if err := purge(ctx, tx, now); err != nil {
			return err
		}
		if err := mustHaveVersion(ctx, tx, c); err != nil {
			return err
		}
		var micro int64
		err := tx.QueryRowContext(ctx, `INSERT INTO deletion (connection, at) VALUES (?, ?)
			ON CONFLICT DO UPDATE SET at = at RETURNING at`, c.String(), now.Add(recovery).UnixMicro()).Scan(&micro)
		at = time.UnixMicro(micro).UTC()
		return err
	})
	return at, err
}

// Cancel restores the secret of c with all its versions. A secret that was not scheduled
// for deletion is not an error. rotation.ErrNoSecret.
func (d Deletions) Cancel(ctx context.Context, c token.Connection) error {
	return d.s.write(ctx, "restoring the secret of "+c.String(), func(tx *sql.Tx) error {
		if err := purge(ctx, tx, time.Now()); err != nil {
			return err
		}
		if err := mustHaveVersion(ctx, tx, c); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM deletion WHERE connection = ?`, c.String())
		return err
	})
}

// End deletes a secret that is scheduled for deletion now, so that nobody can restore it. A
// secret that is not scheduled stays, with an error. No secret is no error.
func (d Deletions) End(ctx context.Context, c token.Connection) error {
	return d.s.write(ctx, "deleting the secret of "+c.String(), func(tx *sql.Tx) error {
		now := time.Now()
		if _, err := tx.ExecContext(ctx, `UPDATE deletion SET at = min(at, ?) WHERE connection = ?`, now.UnixMicro(),
			c.String()); err != nil {
			return err
		}
		if err := purge(ctx, tx, now); err != nil {
			return err
		}
		switch err := mustHaveVersion(ctx, tx, c); {
		case err == nil:
			return errRestored
		case !errors.Is(err, rotation.ErrNoSecret):
			return err
		}
		return nil
	})
}

var errRestored = errors.New("it is not scheduled for deletion")

// purge deletes the secrets at the end of their recovery time.
func purge(ctx context.Context, tx *sql.Tx, now time.Time) error {
	for _, table := range []string{"label", "version", "deletion"} { // labels refer to versions
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE connection IN
			(SELECT connection FROM deletion WHERE at <= ?)`, now.UnixMicro()); err != nil {
			return err
		}
	}
	return nil
}

// mustExist returns ErrNoSecret unless c has a secret, and ErrSecretDeleted if
// that is scheduled for deletion.
func mustExist(ctx context.Context, tx *sql.Tx, c token.Connection) error {
	if err := mustHaveVersion(ctx, tx, c); err != nil {
		return err
	}
	var at sql.NullInt64
	err := tx.QueryRowContext(ctx, `SELECT max(at) FROM deletion WHERE connection = ?`, c.String()).Scan(&at)
	switch {
	case err != nil || !at.Valid:
		return err
	case at.Int64 <= time.Now().UnixMicro():
		return rotation.ErrNoSecret
	}
	return rotation.ErrSecretDeleted
}

// mustHaveVersion returns ErrNoSecret unless a version of a secret of c is stored.
func mustHaveVersion(ctx context.Context, tx *sql.Tx, c token.Connection) error {
	var exists bool
	err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM version WHERE connection = ?)`, c.String()).Scan(&exists)
	if err == nil && !exists {
		err = rotation.ErrNoSecret
	}
	return err
}
