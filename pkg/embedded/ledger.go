package embedded

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// historyKept is how long a connection's events stay, counted back from its newest one.
const historyKept = 90 * 24 * time.Hour

// Ledger keeps records, responses and history. Nothing in them is secret in the
// clear: the answers in responses come sealed.
type Ledger struct{ s *Store }

var _ rotation.Ledger = Ledger{}

// Ledger returns the store's rotation.Ledger.
func (s *Store) Ledger() Ledger { return Ledger{s} }

// Load implements rotation.Ledger.
func (l Ledger) Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse, error) {
	record := rotation.Record{Connection: c}
	var responses []rotation.TokenResponse
	err := l.s.read(ctx, "loading "+c.String(), func(tx *sql.Tx) (err error) {
		row := tx.QueryRowContext(ctx, `SELECT revision, json FROM record WHERE connection = ?`, c.String())
		if record, err = scanRecord(row); errors.Is(err, sql.ErrNoRows) {
			record = rotation.Record{Connection: c}
		} else if err != nil {
			return err
		}
		responses, err = selectJSON[rotation.TokenResponse](ctx, tx,
			`SELECT json FROM mint WHERE connection = ? ORDER BY epoch, generation, attempt`, c.String())
		return err
	})
	return record, responses, err
}

// Due implements rotation.Ledger.
func (l Ledger) Due(ctx context.Context, now time.Time) ([]token.Connection, error) {
	what := "listing the due connections"
	rows, err := l.s.db.QueryContext(ctx,
		`SELECT connection FROM record WHERE due_at <= ? ORDER BY due_at, connection`, now.UnixMicro())
	if err != nil {
		return nil, l.s.fault(what, err)
	}
	due, err := collect(rows, func(rows *sql.Rows) (token.Connection, error) {
		var name string
		if err := rows.Scan(&name); err != nil {
			return token.Connection{}, err
		}
		return token.ParseConnection(name)
	})
	return due, l.s.fault(what, err)
}

// List returns every record, by the names of their connections.
func (l Ledger) List(ctx context.Context) ([]rotation.Record, error) {
	what := "listing the connections"
	rows, err := l.s.db.QueryContext(ctx, `SELECT revision, json FROM record ORDER BY connection`)
	if err != nil {
		return nil, l.s.fault(what, err)
	}
	records, err := collect(rows, func(rows *sql.Rows) (rotation.Record, error) { return scanRecord(rows) })
	return records, l.s.fault(what, err)
}

// History returns the newest events of c, newest first, at most limit.
func (l Ledger) History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error) {
	events, err := selectJSON[rotation.Event](ctx, l.s.db,
		`SELECT json FROM event WHERE connection = ? ORDER BY at DESC, id DESC LIMIT ?`, c.String(), max(limit, 0))
	return events, l.s.fault("reading the history of "+c.String(), err)
}

// SaveResponse implements rotation.Ledger.
func (l Ledger) SaveResponse(ctx context.Context, m rotation.TokenResponse) error {
	what := fmt.Sprintf("saving mint %s of %s", responseName(m.Key), m.Connection)
	return l.s.write(ctx, what, func(tx *sql.Tx) error { return appendResponse(ctx, tx, m) })
}

// appendMint leaves a response of the same key as it is.
func appendResponse(ctx context.Context, tx *sql.Tx, m rotation.TokenResponse) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO mint (connection, epoch, generation, attempt, json)
		VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		m.Connection.String(), m.Key.Epoch, m.Key.Generation, m.Key.Attempt, string(text))
	return err
}

// Write implements rotation.Ledger.
func (l Ledger) Write(ctx context.Context, change rotation.Change) (string, error) {
	c := change.Record.Connection
	revision := rand.Text() // never one that another history of this row had, such as that of a restored backup
	err := l.s.write(ctx, "writing "+c.String(), func(tx *sql.Tx) error {
		if err := replaceRecord(ctx, tx, change.Record, revision); err != nil {
			return err
		}
		for _, m := range change.Copy {
			if err := appendResponse(ctx, tx, m); err != nil {
				return err
			}
		}
		for _, m := range change.Mark {
			if err := markResponse(ctx, tx, c, m); err != nil {
				return err
			}
		}
		for _, key := range change.Bury {
			if _, err := tx.ExecContext(ctx, `DELETE FROM mint
				WHERE connection = ? AND epoch = ? AND generation = ? AND attempt = ?`,
				c.String(), key.Epoch, key.Generation, key.Attempt); err != nil {
				return err
			}
		}
		return appendEvents(ctx, tx, c, change.History)
	})
	if err != nil {
		return "", err
	}
	return revision, nil
}

// replaceRecord writes r as revision if the row is still r.Revision.
func replaceRecord(ctx context.Context, tx *sql.Tx, r rotation.Record, revision string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	due := sql.NullInt64{Int64: r.DueAt.UnixMicro(), Valid: !r.DueAt.IsZero()}
	var result sql.Result
	if r.Revision == "" {
		result, err = tx.ExecContext(ctx, `INSERT INTO record (connection, revision, due_at, json)
			VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, r.Connection.String(), revision, due, string(text))
	} else {
		result, err = tx.ExecContext(ctx, `UPDATE record SET revision = ?, due_at = ?, json = ?
			WHERE connection = ? AND revision = ?`, revision, due, string(text), r.Connection.String(), r.Revision)
	}
	if err != nil {
		return err
	}
	return expectOne(result, rotation.ErrConflict)
}

// markMint rewrites the state and reason of a response and nothing else of it.
func markResponse(ctx context.Context, tx *sql.Tx, c token.Connection, m rotation.TokenResponse) error {
	result, err := tx.ExecContext(ctx, `UPDATE mint SET json = json_set(json, '$.state', ?, '$.reason', ?)
		WHERE connection = ? AND epoch = ? AND generation = ? AND attempt = ?`,
		string(m.State), m.Reason, c.String(), m.Key.Epoch, m.Key.Generation, m.Key.Attempt)
	if err != nil {
		return err
	}
	return expectOne(result, fmt.Errorf("marking mint %s: it is not there", responseName(m.Key)))
}

func appendEvents(ctx context.Context, tx *sql.Tx, c token.Connection, events []rotation.Event) error {
	for _, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO event (connection, at, json) VALUES (?, ?, ?)`,
			c.String(), e.At.UnixMicro(), string(text)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM event WHERE connection = ? AND at < ?`,
			c.String(), e.At.Add(-historyKept).UnixMicro()); err != nil {
			return err
		}
	}
	return nil
}

func responseName(k rotation.ResponseKey) string {
	return fmt.Sprintf("%d#%d#%s", k.Epoch, k.Generation, k.Attempt)
}

// scanRecord reads a row of revision and json.
func scanRecord(row interface{ Scan(...any) error }) (r rotation.Record, err error) {
	var revision, text string
	if err := row.Scan(&revision, &text); err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return r, fmt.Errorf("decoding the row: %w", err)
	}
	r.Revision = revision
	return r, nil
}
