package embedded

import (
	"context"
	"database/sql"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Deletions schedule the deletion of connections' secrets, and take that back, on
// the terms of Secrets Manager: from when it is scheduled on nobody reads or
// writes the secret, and once its time has come it is overwritten by the next
// process that opens the store, or by the next secret of the connection.
type Deletions struct{ s *Store }

// Deletions returns what disconnecting and its undoing need.
func (s *Store) Deletions() Deletions { return Deletions{s} }

// Schedule takes the secret of c away at once and for good after the recovery
// time. It returns when that will be; if it was scheduled before, that time
// stays. rotation.ErrNoSecret.
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

// Cancel gives the secret of c back with all its versions. That it was not
// scheduled for deletion is no error. rotation.ErrNoSecret.
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

// purge ends the secrets whose time has come.
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

// mustHaveVersion returns ErrNoSecret unless anything is stored of a secret of c.
func mustHaveVersion(ctx context.Context, tx *sql.Tx, c token.Connection) error {
	var exists bool
	err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM version WHERE connection = ?)`, c.String()).Scan(&exists)
	if err == nil && !exists {
		err = rotation.ErrNoSecret
	}
	return err
}
