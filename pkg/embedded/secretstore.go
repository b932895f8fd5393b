package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The labels that Secrets Manager moves on its own or when tokenturn asks.
const (
	current  = "AWSCURRENT"
	pending  = "AWSPENDING"
	previous = "AWSPREVIOUS"
)

// Versions without a label are deleted when they are older than versionAge, except the
// newest versionsKept of them, as in Secrets Manager
// (https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html).
const (
	versionsKept = 100
	versionAge   = 24 * time.Hour
)

// SecretStore keeps one secret per connection, encrypted under the key file. Its
// reads are never stale, and it has no daily limit of versions.
type SecretStore struct{ s *Store }

var _ rotation.SecretStore = SecretStore{}

// SecretStore returns the store's rotation.SecretStore.
func (s *Store) SecretStore() SecretStore { return SecretStore{s} }

// Current implements rotation.SecretStore.
func (v SecretStore) Current(ctx context.Context, c token.Connection) (rotation.Version, error) {
	return v.find(ctx, "reading the current token of "+c.String(), c, `SELECT id, sealed FROM version JOIN label
		USING (connection, id) WHERE connection = ? AND label = ?`, current)
}

// Version implements rotation.SecretStore.
func (v SecretStore) Version(ctx context.Context, c token.Connection, id string) (rotation.Version, error) {
	return v.find(ctx, fmt.Sprintf("reading version %s of %s", id, c), c,
		`SELECT id, sealed FROM version WHERE connection = ? AND id = ?`, id)
}

// find reads the version that query finds for c and by.
func (v SecretStore) find(ctx context.Context, what string, c token.Connection, query,
	by string) (version rotation.Version, err error) {
	err = v.s.read(ctx, what, func(tx *sql.Tx) error {
		if err := mustExist(ctx, tx, c); err != nil {
			return err
		}
		var sealed []byte
		switch err := tx.QueryRowContext(ctx, query, c.String(), by).Scan(&version.ID, &sealed); {
		case errors.Is(err, sql.ErrNoRows):
			return rotation.ErrNoVersion
		case err != nil:
			return err
		}
		value, err := unseal(v.s.keys.versions, sealed, c.String(), version.ID)
		version.Value = token.NewSecret(value)
		return err
	})
	return version, err
}

// Versions implements rotation.SecretStore, newest first.
func (v SecretStore) Versions(ctx context.Context, c token.Connection) (versions []rotation.VersionInfo, err error) {
	err = v.s.read(ctx, "listing the versions of "+c.String(), func(tx *sql.Tx) error {
		if err := mustExist(ctx, tx, c); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, `SELECT id, created_at, coalesce(group_concat(label ORDER BY label), '')
			FROM version LEFT JOIN label USING (connection, id) WHERE connection = ?
			GROUP BY id ORDER BY created_at DESC, version.rowid DESC`, c.String())
		if err != nil {
			return err
		}
		versions, err = collect(rows, func(rows *sql.Rows) (info rotation.VersionInfo, err error) {
			var created int64
			var labels string
			err = rows.Scan(&info.ID, &created, &labels)
			info.CreatedAt = time.UnixMicro(created).UTC()
			if labels != "" {
				info.Labels = strings.Split(labels, ",")
			}
			return info, err
		})
		return err
	})
	return versions, err
}

// Connections lists the connections that have a secret, except for those scheduled for deletion.
func (v SecretStore) Connections(ctx context.Context) (connections []token.Connection, err error) {
	err = v.s.read(ctx, "listing the secrets", func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT DISTINCT connection FROM version
			WHERE connection NOT IN (SELECT connection FROM deletion) ORDER BY connection`)
		if err != nil {
			return err
		}
		connections, err = collect(rows, func(rows *sql.Rows) (c token.Connection, err error) {
			var name string
			if err = rows.Scan(&name); err == nil {
				c, err = token.ParseConnection(name)
			}
			return c, err
		})
		return err
	})
	return connections, err
}

// Create implements rotation.SecretStore.
func (v SecretStore) Create(ctx context.Context, c token.Connection, id string, value token.Secret) error {
	return v.s.write(ctx, "creating the secret of "+c.String(), func(tx *sql.Tx) error {
		switch err := mustExist(ctx, tx, c); {
		case errors.Is(err, rotation.ErrNoSecret):
			if err := purge(ctx, tx, time.Now()); err != nil {
				return err
			}
			return v.add(ctx, tx, c, id, value, current)
		case err != nil:
			return err
		}
		there, err := v.same(ctx, tx, c, id, value)
		if err == nil && !there {
			err = rotation.ErrVersionTaken
		}
		return err
	})
}

// Put implements rotation.SecretStore.
func (v SecretStore) Put(ctx context.Context, c token.Connection, id string, value token.Secret) error {
	return v.s.write(ctx, fmt.Sprintf("putting version %s of %s", id, c), func(tx *sql.Tx) error {
		if err := mustExist(ctx, tx, c); err != nil {
			return err
		}
		if there, err := v.same(ctx, tx, c, id, value); there || err != nil {
			return err
		}
		if err := v.add(ctx, tx, c, id, value, pending); err != nil {
			return err
		}
		return trim(ctx, tx, c)
	})
}

// Promote implements rotation.SecretStore.
func (v SecretStore) Promote(ctx context.Context, c token.Connection, id, replaces string) error {
	return v.s.write(ctx, fmt.Sprintf("promoting version %s of %s", id, c), func(tx *sql.Tx) error {
		if err := mustExist(ctx, tx, c); err != nil {
			return err
		}
		var there bool
		var now string
		if err := tx.QueryRowContext(ctx, `SELECT
			EXISTS (SELECT 1 FROM version WHERE connection = ?1 AND id = ?2),
			coalesce((SELECT id FROM label WHERE connection = ?1 AND label = ?3), '')`,
			c.String(), id, current).Scan(&there, &now); err != nil {
			return err
		}
		switch {
		case !there:
			return rotation.ErrNoVersion
		case now == id:
			return nil
		case now != replaces:
			return rotation.ErrNotCurrent
		}
		if err := attach(ctx, tx, c, current, id); err != nil {
			return err
		}
		return attach(ctx, tx, c, previous, replaces)
	})
}

// same reports whether the version exists with this value; ErrVersionTaken if it has
// another one.
func (v SecretStore) same(ctx context.Context, tx *sql.Tx, c token.Connection, id string, value token.Secret) (bool,
	error) {
	var sealed []byte
	err := tx.QueryRowContext(ctx, `SELECT sealed FROM version WHERE connection = ? AND id = ?`, c.String(),
		id).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	stored, err := unseal(v.s.keys.versions, sealed, c.String(), id)
	if err == nil && stored != value.Reveal() {
		err = rotation.ErrVersionTaken
	}
	return err == nil, err
}

// add stores a new version with a label.
func (v SecretStore) add(ctx context.Context, tx *sql.Tx, c token.Connection, id string, value token.Secret,
	label string) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO version (connection, id, created_at, sealed) VALUES (?, ?, ?, ?)`,
		c.String(), id, time.Now().UnixMicro(), seal(v.s.keys.versions, value.Reveal(), c.String(), id)); err != nil {
		return err
	}
	return attach(ctx, tx, c, label, id)
}

// attach moves a label to a version.
func attach(ctx context.Context, tx *sql.Tx, c token.Connection, label, id string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO label (connection, label, id) VALUES (?1, ?2, ?3)
		ON CONFLICT (connection, label) DO UPDATE SET id = ?3`, c.String(), label, id)
	return err
}

func trim(ctx context.Context, tx *sql.Tx, c token.Connection) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM version WHERE rowid IN (
		SELECT rowid FROM version WHERE connection = ?1 AND id NOT IN (SELECT id FROM label WHERE connection = ?1)
		ORDER BY created_at DESC, rowid DESC LIMIT -1 OFFSET ?2) AND created_at < ?3`,
		c.String(), versionsKept, time.Now().Add(-versionAge).UnixMicro())
	return err
}
