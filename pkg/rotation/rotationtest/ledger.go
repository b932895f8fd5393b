package rotationtest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	_ rotation.Ledger = (*Ledger)(nil)
	_ Historian       = (*Ledger)(nil)
	_ Lister          = (*Ledger)(nil)
	_ Remover         = (*Ledger)(nil)
)

// Ledger keeps rows in memory, encoded and decoded as in any table. The zero value is an
// empty one.
type Ledger struct {
	Gate    Gate
	Journal *Journal

	mu     sync.Mutex
	tables map[token.Connection]*rows
	writes int
}

// rows are the rows of one connection. The values that record and responses point to are
// never changed, only replaced, so the journal may share them.
type rows struct {
	record    rotation.Record // without a revision: no row
	wasDue    time.Time       // DueAt before the last write, which a lagging index still shows
	responses map[rotation.ResponseKey]rotation.TokenResponse
	history   []rotation.Event
}

func (l *Ledger) of(c token.Connection) *rows {
	if l.tables == nil {
		l.tables = map[token.Connection]*rows{}
	}
	if l.tables[c] == nil {
		l.tables[c] = &rows{record: rotation.Record{Connection: c},
			responses: map[rotation.ResponseKey]rotation.TokenResponse{}}
	}
	return l.tables[c]
}

type loaded struct {
	record    rotation.Record
	responses []rotation.TokenResponse
}

func (l *Ledger) Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse, error) {
	got, err := Through(ctx, l.Gate, "ledger.Load", c, func(bool) (loaded, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		row := l.of(c)
		return loaded{deepCopy(row.record), row.liveResponses()}, nil
	})
	return got.record, got.responses, err
}

func (r *rows) liveResponses() []rotation.TokenResponse {
	var responses []rotation.TokenResponse
	for _, m := range r.responses {
		responses = append(responses, deepCopy(m))
	}
	slices.SortFunc(responses, func(a, b rotation.TokenResponse) int {
		return compareKeys(a.Key, b.Key)
	})
	return responses
}

func (l *Ledger) Due(ctx context.Context, now time.Time) ([]token.Connection, error) {
	return Through(ctx, l.Gate, "ledger.Due", token.Connection{}, func(stale bool) ([]token.Connection, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		at := map[token.Connection]time.Time{}
		for c, row := range l.tables {
			due := row.record.DueAt
			if stale {
				due = row.wasDue
			}
			if !due.IsZero() && !due.After(now) {
				at[c] = due
			}
		}
		return slices.SortedFunc(maps.Keys(at), func(a, b token.Connection) int {
			return cmp.Or(at[a].Compare(at[b]), compareConnections(a, b))
		}), nil
	})
}

func (l *Ledger) Write(ctx context.Context, change rotation.Change) (string, error) {
	c := change.Record.Connection
	return Through(ctx, l.Gate, "ledger.Write", c, func(bool) (string, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		row := l.of(c)
		if row.record.Revision != change.Record.Revision {
			return "", fmt.Errorf("writing %s: %w", c, rotation.ErrConflict)
		}
		for _, mark := range change.Mark {
			if _, found := row.responses[mark.Key]; !found {
				return "", fmt.Errorf("writing %s: the response to be marked is not there: %w", c, rotation.ErrConflict)
			}
		}
		l.writes++
		row.wasDue = row.record.DueAt
		text := encode(change.Record)
		row.record = decode[rotation.Record](text)
		row.record.Revision = strconv.Itoa(l.writes)
		for _, m := range change.Copy {
			l.append(ctx, row, m)
		}
		for _, mark := range change.Mark {
			row.mark(mark)
		}
		for _, key := range change.Bury {
			delete(row.responses, key)
		}
		row.history = append(row.history, change.History...)
		l.Journal.Add(ctx, c, Wrote{rotation.Change{Record: row.record, Mark: slices.Clone(change.Mark),
			Bury: slices.Clone(change.Bury), History: slices.Clone(change.History)}, text})
		return row.record.Revision, nil
	})
}

// mark changes only the state and the reason of a response.
func (r *rows) mark(mark rotation.TokenResponse) {
	response := r.responses[mark.Key]
	response.State, response.Reason = mark.State, mark.Reason
	r.responses[mark.Key] = response
}

func (l *Ledger) SaveResponse(ctx context.Context, m rotation.TokenResponse) error {
	_, err := Through(ctx, l.Gate, "ledger.SaveResponse", m.Connection, func(bool) (struct{}, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.append(ctx, l.of(m.Connection), m)
		return struct{}{}, nil
	})
	return err
}

// append adds a response if it is not there yet. It requires the lock.
func (l *Ledger) append(ctx context.Context, row *rows, m rotation.TokenResponse) {
	if _, found := row.responses[m.Key]; !found {
		text := encode(m)
		row.responses[m.Key] = decode[rotation.TokenResponse](text)
		l.Journal.Add(ctx, m.Connection, Responded{row.responses[m.Key], text})
	}
}

// History returns the newest rows of a connection's history, newest first.
func (l *Ledger) History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error) {
	return Through(ctx, l.Gate, "ledger.History", c, func(bool) ([]rotation.Event, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		events := slices.Clone(l.of(c).history)
		slices.Reverse(events)
		slices.SortStableFunc(events, func(a, b rotation.Event) int { return b.At.Compare(a.At) })
		return events[:min(limit, len(events))], nil
	})
}

// List returns every record, in the order of the connections' names.
func (l *Ledger) List(ctx context.Context) ([]rotation.Record, error) {
	return Through(ctx, l.Gate, "ledger.List", token.Connection{}, func(bool) ([]rotation.Record, error) {
		return l.records(), nil
	})
}

// Remove deletes everything about a connection if its row is still rec.
func (l *Ledger) Remove(ctx context.Context, rec rotation.Record) error {
	c := rec.Connection
	_, err := Through(ctx, l.Gate, "ledger.Remove", c, func(bool) (struct{}, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		row := l.of(c)
		if row.record.Revision != "" && row.record.Revision != rec.Revision || len(row.responses) > 0 {
			return struct{}{}, fmt.Errorf("removing %s: %w", c, rotation.ErrConflict)
		}
		delete(l.tables, c)
		l.Journal.Add(ctx, c, Restored{rotation.Record{Connection: c}})
		return struct{}{}, nil
	})
	return err
}

// Backup copies all rows. The returned function restores them, like a table that is restored
// from a backup.
func (l *Ledger) Backup() (restore func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	copied := l.copyTables(l.tables)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tables = l.copyTables(copied)
		for _, c := range slices.SortedFunc(maps.Keys(l.tables), compareConnections) {
			l.Journal.Add(context.Background(), c, Restored{l.tables[c].record})
		}
	}
}

// Drop deletes everything, as if the table had been deleted and created again.
func (l *Ledger) Drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range slices.SortedFunc(maps.Keys(l.tables), compareConnections) {
		l.Journal.Add(context.Background(), c, Restored{rotation.Record{Connection: c}})
	}
	l.tables = nil
}

func (l *Ledger) copyTables(tables map[token.Connection]*rows) map[token.Connection]*rows {
	copied := map[token.Connection]*rows{}
	for c, row := range tables {
		r := *row
		r.responses, r.history = maps.Clone(row.responses), slices.Clone(row.history)
		copied[c] = &r
	}
	return copied
}

// encode and decode do what a store does. They cannot fail for the types that they are used
// with. If they do, the types have changed, and the test must end.
func encode(v any) []byte {
	bytes, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return bytes
}

func decode[T any](bytes []byte) (v T) {
	if err := json.Unmarshal(bytes, &v); err != nil {
		panic(err)
	}
	return v
}
