package embedded

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// historyKept is how long a connection's events stay, counted back from its newest event.
const historyKept = 90 * 24 * time.Hour

// Ledger keeps records, responses and history. Nothing in them is secret in
// plain text: the answers in responses are sealed.
type Ledger struct{ s *Store }

var _ rotation.Ledger = Ledger{}

// Ledger returns the store's rotation.Ledger.
func (s *Store) Ledger() Ledger { return Ledger{s} }

// Load implements rotation.Ledger.
func (l Ledger) Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse, error) {
	record := rotation.Record{Connection: c}
	var responses []rotation.TokenResponse
	// The reserve is read before the database: an answer that is no longer in the reserve is
	// then already in the database.
	reserved := l.s.reserve.read()
	err := l.s.read(ctx, "loading "+c.String(), func(tx *sql.Tx) (err error) {
		row := tx.QueryRowContext(ctx, `SELECT revision, json FROM record WHERE connection = ?`, c.String())
		if record, err = scanRecord(row); errors.Is(err, sql.ErrNoRows) {
			record = rotation.Record{Connection: c}
		} else if err != nil {
			return err
		}
		responses, err = selectJSON[rotation.TokenResponse](ctx, tx,
			`SELECT json FROM mint WHERE connection = ? ORDER BY epoch, generation, attempt`, c.String())
		if err != nil || reserved.none() {
			return err
		}
		responses, err = withReserved(ctx, tx, reserved, c, responses)
		return err
	})
	return record, responses, err
}

// withReserved adds the responses of c that the database does not have yet.
func withReserved(ctx context.Context, tx *sql.Tx, reserved contents, c token.Connection,
	responses []rotation.TokenResponse) ([]rotation.TokenResponse, error) {
	all, err := claims(ctx, tx)
	for _, claim := range all {
		if claim.connection != c.String() {
			continue
		}
		m, found, unread := reserved.of(claim)
		if found && !slices.ContainsFunc(responses, func(there rotation.TokenResponse) bool { return there.Key == m.Key }) {
			responses = append(responses, m)
		}
		err = errors.Join(err, unread)
	}
	return responses, err
}

// Due implements rotation.Ledger.
func (l Ledger) Due(ctx context.Context, now time.Time) ([]token.Connection, error) {
	what := "listing the due connections"
	rows, err := l.s.db.QueryContext(ctx,
		`SELECT connection FROM record WHERE due_at <= ? ORDER BY due_at, connection`, now.UnixMicro())
	if err != nil {
		return nil, l.s.fault(what, err)
	}
	names, err := collect(rows, scanText)
	if err != nil {
		return nil, l.s.fault(what, err)
	}
	var due []token.Connection
	for _, name := range names {
		// A row without a connection's name is not tokenturn's and must not stop the others.
		if c, err := token.ParseConnection(name); err == nil {
			due = append(due, c)
		}
	}
	return due, nil
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

// ListVersion returns a text that differs whenever List would return something else. It
// costs a small part of a List.
func (l Ledger) ListVersion(ctx context.Context) (string, error) {
	var revisions string
	err := l.s.db.QueryRowContext(ctx, `SELECT coalesce(group_concat(revision, ''), '') FROM record`).Scan(&revisions)
	if err != nil {
		return "", l.s.fault("looking for changed connections", err)
	}
	sum := sha256.Sum256([]byte(revisions)) // revisions are random and never used twice
	return string(sum[:]), nil
}

// History returns the newest events of c, newest first, at most limit.
func (l Ledger) History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error) {
	events, err := selectJSON[rotation.Event](ctx, l.s.db,
		`SELECT json FROM event WHERE connection = ? ORDER BY at DESC, id DESC LIMIT ?`, c.String(), max(limit, 0))
	return events, l.s.fault("reading the history of "+c.String(), err)
}

// Remove deletes the row of rec.Connection and its history if the row is still
// rec.Revision, and if there is no response. Otherwise rotation.ErrConflict.
func (l Ledger) Remove(ctx context.Context, rec rotation.Record) error {
	c := rec.Connection.String()
	return l.s.write(ctx, "removing "+c, func(tx *sql.Tx) error {
		var stays bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM record WHERE connection = ?1 AND revision <> ?2)
			OR EXISTS (SELECT 1 FROM mint WHERE connection = ?1)`, c, rec.Revision).Scan(&stays); err != nil {
			return err
		}
		if stays {
			return rotation.ErrConflict
		}
		return deleteRows(ctx, tx, c)
	})
}

// deleteRows deletes the row and the history of the connection with this name.
func deleteRows(ctx context.Context, tx *sql.Tx, name string) error {
	for _, table := range []string{"record", "event"} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE connection = ?`, name); err != nil {
			return err
		}
	}
	return nil
}

// deleteExpired deletes the connections to which nobody consented before their last
// invitation expired; see rotation.Record.DeleteAt. It reads all rows that are not due, so
// only what is rarely done calls it. A damaged row stays and does not stop it.
func (s *Store) deleteExpired(ctx context.Context, now time.Time) error {
	kept := rotation.Record{Status: rotation.Pending, InvitedUntil: now}.DeleteAt().Sub(now)
	return s.write(ctx, "deleting expired connections", func(tx *sql.Tx) error {
		// SQLite may evaluate the terms of AND in any order, but those of CASE in theirs.
		rows, err := tx.QueryContext(ctx, `SELECT connection FROM record WHERE due_at IS NULL
			AND CASE WHEN json_valid(json) THEN json ->> '$.status' = ? AND unixepoch(json ->> '$.invited_until') < ? END
			AND connection NOT IN (SELECT connection FROM mint)`, string(rotation.Pending), now.Add(-kept).Unix())
		if err != nil {
			return err
		}
		names, err := collect(rows, scanText)
		for _, name := range names {
			if err == nil {
				err = deleteRows(ctx, tx, name)
			}
		}
		return err
	})
}

// SaveResponse implements rotation.Ledger. An answer that the database cannot take is
// saved in the reserve.
func (l Ledger) SaveResponse(ctx context.Context, m rotation.TokenResponse) error {
	what := fmt.Sprintf("saving response %s of %s", responseName(m.Key), m.Connection)
	err := l.s.write(ctx, what, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM reserve WHERE connection = ? AND claim = ?`,
			m.Connection.String(), attemptClaim(m.Key.Attempt)); err != nil {
			return err
		}
		return appendResponse(ctx, tx, m)
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	if reserved := l.s.write(ctx, what, func(tx *sql.Tx) error { return l.s.reserve.save(ctx, tx, m) }); reserved != nil {
		return errors.Join(err, reserved)
	}
	return nil
}

// appendResponse stores a response. It leaves an existing one with the same key unchanged.
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
	revision := rand.Text() // never one of another history of this row, such as that of a restored backup
	var begun []rotation.Attempt
	var exchange, moved bool
	err := l.s.write(ctx, "writing "+c.String(), func(tx *sql.Tx) (err error) {
		stored, err := scanRecord(tx.QueryRowContext(ctx, `SELECT revision, json FROM record WHERE connection = ?`,
			c.String()))
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		begun, exchange = attemptsBegun(stored, change.Record), exchangeBegins(stored, change.Record)
		if err := replaceRecord(ctx, tx, change.Record, revision); err != nil {
			return err
		}
		if moved, err = l.s.reserve.settle(ctx, tx, c, change.Record.Attempts()); err != nil {
			return err
		}
		if err := apply(ctx, tx, change); err != nil {
			return err
		}
		for _, a := range begun {
			if err := l.s.reserve.claim(ctx, tx, c, attemptClaim(a.ID), a.Until); err != nil {
				return err
			}
		}
		if exchange {
			return l.s.reserve.claimExchange(ctx, tx, c, revision, change.Record.SearchAt)
		}
		return nil
	})
	if err != nil {
		if len(begun) > 0 || exchange {
			err = l.s.reserve.explain(err)
		}
		return "", err
	}
	if moved {
		_ = l.s.tidy(ctx) // if it fails, the next opening of the store does it
	}
	return revision, nil
}

// attemptsBegun returns the attempts of r that the stored row does not have.
func attemptsBegun(stored, r rotation.Record) (begun []rotation.Attempt) {
	for _, a := range r.Attempts() {
		if !slices.ContainsFunc(stored.Attempts(), func(b rotation.Attempt) bool { return a.ID == b.ID }) {
			begun = append(begun, a)
		}
	}
	return begun
}

// exchangeBegins reports whether the write only says until when to search for what an
// exchange may leave behind: a code is exchanged next.
func exchangeBegins(stored, r rotation.Record) bool {
	return r.SearchAt.After(stored.SearchAt) && r.Epoch == stored.Epoch && r.Revision != ""
}

// apply makes the parts of the change other than replacing the record.
func apply(ctx context.Context, tx *sql.Tx, change rotation.Change) error {
	c := change.Record.Connection
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

// markResponse changes the state and reason of a response, and nothing else.
func markResponse(ctx context.Context, tx *sql.Tx, c token.Connection, m rotation.TokenResponse) error {
	result, err := tx.ExecContext(ctx, `UPDATE mint SET json = json_set(json, '$.state', ?, '$.reason', ?)
		WHERE connection = ? AND epoch = ? AND generation = ? AND attempt = ?`,
		string(m.State), m.Reason, c.String(), m.Key.Epoch, m.Key.Generation, m.Key.Attempt)
	if err != nil {
		return err
	}
	missing := fmt.Errorf("response %s cannot be marked, because it does not exist: %w", responseName(m.Key),
		rotation.ErrConflict)
	return expectOne(result, missing)
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

// scanRecord reads a row with revision and json.
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
