package rotationtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Historian is a method that the operator CLI needs of a ledger besides rotation.Ledger.
type Historian interface {
	// History returns up to limit rows of a connection's history, newest first.
	History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error)
}

// Lister is a method that the operator CLI needs of a ledger besides rotation.Ledger.
type Lister interface {
	// List returns the record of every connection that has one.
	List(ctx context.Context) ([]rotation.Record, error)
}

// Remover is a method that the operator CLI needs of a ledger besides rotation.Ledger.
type Remover interface {
	// Remove deletes the row of rec.Connection and its history if the row is still
	// rec.Revision, and if there is no response. Otherwise ErrConflict, and nothing is
	// deleted. If the row is gone already, Remove deletes what is left of the history.
	Remove(ctx context.Context, rec rotation.Record) error
}

// TestLedger is the contract of rotation.Ledger, Historian, Lister and Remover. Each
// call of open returns an empty ledger.
//
// Times must survive to the millisecond, in any time zone; Due orders to the second.
func TestLedger(t *testing.T, open func(t *testing.T) rotation.Ledger) {
	for name, test := range sorted(map[string]func(*testing.T, *ledgerUser){
		"an unknown connection is empty":                unknownConnection,
		"a row is created once":                         createOnce,
		"a row is replaced by its revision":             replaceByRevision,
		"a refused write changes nothing":               refusedWrite,
		"responses are copied with a write":             copiedResponses,
		"a copy never overwrites a response":            copyOverResponse,
		"a response that is copied twice is there once": copiedTwice,
		"a change may be large":                         largeChange,
		"every field survives":                          everyField,
		"absent fields stay absent":                     absentFields,
		"a field can be taken away":                     removedFields,
		"a response is saved once":                      responseOnce,
		"a response needs no row":                       responseWithoutRow,
		"every field of a response survives":            everyResponseField,
		"a large response survives":                     largeResponse,
		"an attempt's answer is saved":                  attemptsAnswer,
		"many responses":                                manyResponses,
		"a mark rewrites state and reason":              markResponse,
		"a mark of a response that is gone conflicts":   markWithoutResponse,
		"a marked response is not saved over":           responseAfterMark,
		"a buried response is gone":                     buryResponse,
		"history is kept, newest first":                 history,
		"history of one instant is kept":                historyOfOneInstant,
		"due connections are listed in order":           dueOrder,
		"due follows the row":                           dueFollows,
		"hundreds are due":                              dueMany,
		"connections with similar names are separate":   similarNames,
		"a removed connection is gone":                  removed,
		"what changed or has a response is not removed": notRemoved,
		"of many writers with one revision one wins":    oneWriterWins,
		"many responses are saved at once":              manySavers,
		"a cancelled context is an error":               cancelledLedger,
		"what the caller does afterwards is not stored": detached,
	}) {
		t.Run(name, func(t *testing.T) { test(t, &ledgerUser{t, open(t)}) })
	}
}

var (
	acme  = token.Connection{Environment: "sandbox", Name: "acme"}
	start = time.Date(2026, 11, 21, 22, 0, 0, 123_000_000, time.UTC)
)

// ledgerUser is a ledger for tests. It ends the test if a call fails that must succeed.
type ledgerUser struct {
	t *testing.T
	rotation.Ledger
}

func (l *ledgerUser) load(c token.Connection) (rotation.Record, []rotation.TokenResponse) {
	l.t.Helper()
	record, responses, err := l.Load(l.t.Context(), c)
	if err != nil {
		l.t.Fatalf("loading %s: %v", c, err)
	}
	slices.SortFunc(responses, func(a, b rotation.TokenResponse) int { return compareKeys(a.Key, b.Key) })
	return record, responses
}

func (l *ledgerUser) write(change rotation.Change) (revision string) {
	l.t.Helper()
	revision, err := l.Write(l.t.Context(), change)
	if err != nil {
		l.t.Fatalf("writing %s: %v", change.Record.Connection, err)
	}
	if revision == "" || revision == change.Record.Revision {
		l.t.Fatalf("writing %s: the revision %q after the write is that of before, or empty", change.Record.Connection,
			revision)
	}
	return revision
}

// create writes the first row of c and returns it as it is now.
func (l *ledgerUser) create(c token.Connection) rotation.Record {
	l.t.Helper()
	record := rotation.Record{Connection: c, Stack: "stack", Status: rotation.Pending}
	record.Revision = l.write(rotation.Change{Record: record})
	return record
}

func (l *ledgerUser) save(m rotation.TokenResponse) {
	l.t.Helper()
	if err := l.SaveResponse(l.t.Context(), m); err != nil {
		l.t.Fatalf("saving a response of %s: %v", m.Connection, err)
	}
}

// conflicts asserts that the write is refused because of its revision.
func (l *ledgerUser) conflicts(change rotation.Change) {
	l.t.Helper()
	if _, err := l.Write(l.t.Context(), change); !errors.Is(err, rotation.ErrConflict) {
		l.t.Errorf("writing with revision %q: got %v, want ErrConflict", change.Record.Revision, err)
	}
}

func (l *ledgerUser) history(c token.Connection, limit int) []rotation.Event {
	l.t.Helper()
	historian, ok := l.Ledger.(Historian)
	if !ok {
		l.t.Fatalf("%T has no History; see Historian", l.Ledger)
	}
	events, err := historian.History(l.t.Context(), c, limit)
	if err != nil {
		l.t.Fatalf("reading the history of %s: %v", c, err)
	}
	return events
}

func (l *ledgerUser) list() []rotation.Record {
	l.t.Helper()
	lister, ok := l.Ledger.(Lister)
	if !ok {
		l.t.Fatalf("%T has no List; see Lister", l.Ledger)
	}
	records, err := lister.List(l.t.Context())
	if err != nil {
		l.t.Fatalf("listing: %v", err)
	}
	slices.SortFunc(records, func(a, b rotation.Record) int {
		return compareConnections(a.Connection, b.Connection)
	})
	return records
}

func (l *ledgerUser) remove(rec rotation.Record) error {
	l.t.Helper()
	remover, ok := l.Ledger.(Remover)
	if !ok {
		l.t.Fatalf("%T has no Remove; see Remover", l.Ledger)
	}
	return remover.Remove(l.t.Context(), rec)
}

func (l *ledgerUser) due(now time.Time) []token.Connection {
	l.t.Helper()
	due, err := l.Due(l.t.Context(), now)
	if err != nil {
		l.t.Fatalf("asking what is due: %v", err)
	}
	return due
}

// response is a small response of acme.
func response(epoch, generation int64, attempt string) rotation.TokenResponse {
	return rotation.TokenResponse{Connection: acme, Key: rotation.ResponseKey{Epoch: epoch, Generation: generation,
		Attempt: attempt},
		Source: rotation.FromRefresh, SavedAt: start, State: rotation.Saved, Sealed: []byte("sealed " + attempt),
		Stack: "stack"}
}

func unknownConnection(t *testing.T, l *ledgerUser) {
	record, responses := l.load(acme)
	if record.Revision != "" || len(responses) != 0 {
		t.Errorf("got revision %q and %d responses", record.Revision, len(responses))
	}
	if due := l.due(start); len(due) != 0 {
		t.Errorf("due: %v", due)
	}
	if list := l.list(); len(list) != 0 {
		t.Errorf("listed: %v", list)
	}
	if events := l.history(acme, 10); len(events) != 0 {
		t.Errorf("history: %v", events)
	}
}

func createOnce(t *testing.T, l *ledgerUser) {
	created := l.create(acme)
	l.conflicts(rotation.Change{Record: rotation.Record{Connection: acme, Stack: "other", Status: rotation.Active}})
	loaded, _ := l.load(acme)
	same(t, "the row", loaded, created)
	if loaded.Revision != created.Revision {
		t.Errorf("loaded revision %q, written %q", loaded.Revision, created.Revision)
	}
}

func replaceByRevision(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	seen := []string{record.Revision}
	for generation := range int64(5) {
		stale := record
		record.Generation = generation + 1
		record.Revision = l.write(rotation.Change{Record: record})
		if slices.Contains(seen, record.Revision) {
			t.Fatalf("revision %q comes twice", record.Revision)
		}
		seen = append(seen, record.Revision)
		l.conflicts(rotation.Change{Record: stale})
	}
	record.Revision = l.write(rotation.Change{Record: record}) // the same content is a write too
	loaded, _ := l.load(acme)
	same(t, "the row", loaded, record)
	if loaded.Revision != record.Revision {
		t.Errorf("loaded revision %q, written %q", loaded.Revision, record.Revision)
	}
	l.conflicts(rotation.Change{Record: rotation.Record{Connection: token.Connection{Environment: "sandbox",
		Name: "nobody"},
		Revision: record.Revision}})
}

func refusedWrite(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	l.save(response(1, 0, "a"))
	l.save(response(1, 0, "b"))
	record.DueAt = start
	current := record
	current.Revision = l.write(rotation.Change{Record: record, History: []rotation.Event{{At: start, Kind: "decided"}}})

	marked := response(1, 0, "a")
	marked.State = rotation.Rejected
	for _, revision := range []string{record.Revision, ""} {
		refused := rotation.Record{Connection: acme, Revision: revision, Status: rotation.Active,
			DueAt: start.Add(-time.Hour)}
		l.conflicts(rotation.Change{Record: refused, Copy: []rotation.TokenResponse{response(1, 0, "c")},
			Mark: []rotation.TokenResponse{marked},
			Bury: []rotation.ResponseKey{response(1, 0, "b").Key}, History: []rotation.Event{{At: start, Kind: "refused"}}})
	}

	loaded, responses := l.load(acme)
	same(t, "the row", loaded, current)
	same(t, "the responses", responses, []rotation.TokenResponse{response(1, 0, "a"), response(1, 0, "b")})
	same(t, "the history", l.history(acme, 10), []rotation.Event{{At: start, Kind: "decided"}})
	same(t, "what was due earlier", l.due(start.Add(-time.Minute)), []token.Connection(nil))
}

func everyField(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	full := fullRecord()
	full.Revision = record.Revision
	l.write(rotation.Change{Record: full})
	loaded, _ := l.load(acme)
	same(t, "the row", loaded, full)
	same(t, "the list", l.list(), []rotation.Record{full})
	if listed := l.list(); len(listed) == 1 && listed[0].Revision != loaded.Revision {
		t.Errorf("listed revision %q, loaded %q", listed[0].Revision, loaded.Revision)
	}
}

// fullRecord has a value in every field.
func fullRecord() rotation.Record {
	elsewhere := time.FixedZone("elsewhere", -7*3600)
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute).In(elsewhere) }
	key := rotation.ResponseKey{Epoch: 3, Generation: 1 << 40, Attempt: "attempt"}
	return rotation.Record{
		Connection: acme, Stack: "stack é", Epoch: 3, Generation: 1 << 40, Status: rotation.Active,
		Current: &rotation.Current{Fingerprint: "0123", Response: key, VersionID: "version", SavedAt: at(1),
			ExpiresAt: at(2), IssuedAt: at(0), Lifetime: 5400},
		Ancestor:  &rotation.ResponseKey{Epoch: 3, Generation: 1<<40 - 1, Attempt: "ancestor"},
		Published: "version", DueAt: at(3),
		Attempt: &rotation.Attempt{ID: "id", Fingerprint: "4567", BegunAt: at(4), Until: at(5), Seen: at(3), Presentations: 2,
			Refused: true},
		Failures: []rotation.Failure{
			{Step: rotation.Publish, Class: "class", Count: 7, NextAt: at(6), Response: key, Detail: "a\n\"detail\"",
				Cause: "cause"},
			{Step: rotation.Recover, Class: "other", Count: 1, NextAt: at(7)}},
		Refusal: &rotation.Refusal{At: at(9), Tries: 3, NextAt: at(10)},
		ConsentAttempt: &rotation.ConsentAttempt{Consent: "consent",
			Attempt: rotation.Attempt{ID: "other", Fingerprint: "cdef", BegunAt: at(4), Until: at(5), Seen: at(2),
				Presentations: 1, Refused: true}},
		Puts: []int64{1, 2, 1 << 33},
		Pin: &rotation.Pin{Environment: "sandbox", Client: "89ab", ResourceOwner: "12", Login: "pat@example.com",
			Company: "34", CompanyName: "Acme"},
		Imported: []token.Fingerprint{"fedc"}, Spent: []token.Fingerprint{"aaaa", "bbbb"}, SearchAt: at(7), RotatedAt: at(8),
		InvitedUntil:   at(11),
		ServiceAccount: true, Quarantined: true, NoticePending: true,
	}
}

func absentFields(t *testing.T, l *ledgerUser) {
	record := rotation.Record{Connection: acme, Stack: "stack", Status: rotation.Active,
		Current:  &rotation.Current{Fingerprint: "0123", SavedAt: start}, // an import: no version, no end
		Failures: []rotation.Failure{{Step: rotation.Redeem, NextAt: start}}, Pin: &rotation.Pin{Environment: "sandbox"}}
	l.write(rotation.Change{Record: record})
	loaded, _ := l.load(acme)
	same(t, "the row", loaded, record)
	for name, at := range map[string]time.Time{"DueAt": loaded.DueAt, "SearchAt": loaded.SearchAt,
		"RotatedAt": loaded.RotatedAt, "IssuedAt": loaded.Current.IssuedAt, "ExpiresAt": loaded.Current.ExpiresAt} {
		if !at.IsZero() {
			t.Errorf("%s is %v", name, at)
		}
	}
	if loaded.Attempt != nil {
		t.Errorf("there is an attempt: %+v", loaded.Attempt)
	}
}

func removedFields(t *testing.T, l *ledgerUser) {
	full := fullRecord()
	full.Revision = l.write(rotation.Change{Record: full})
	bare := rotation.Record{Connection: acme, Revision: full.Revision, Stack: "stack", Epoch: 4,
		Status: rotation.Disconnected}
	l.write(rotation.Change{Record: bare})
	loaded, _ := l.load(acme)
	same(t, "the row", loaded, bare)
}

func oneWriterWins(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	for round := range 5 {
		revisions := race(16, func(n int) (string, error) {
			mine := record
			mine.Generation = int64(100*round + n)
			return l.Write(t.Context(), rotation.Change{Record: mine,
				History: []rotation.Event{{At: start, Kind: "raced", Generation: mine.Generation}}})
		})
		var winners []int
		for n, r := range revisions {
			switch {
			case r.err == nil:
				winners = append(winners, n)
			case !errors.Is(r.err, rotation.ErrConflict):
				t.Errorf("a loser got %v, want ErrConflict", r.err)
			}
		}
		if len(winners) != 1 {
			t.Fatalf("%d writers won: %v", len(winners), winners)
		}
		record, _ = l.load(acme)
		if want := int64(100*round + winners[0]); record.Generation != want ||
			record.Revision != revisions[winners[0]].value {
			t.Fatalf("the row is that of generation %d with revision %q; the winner wrote %d and got %q",
				record.Generation, record.Revision, want, revisions[winners[0]].value)
		}
		if events := l.history(acme, 100); len(events) != round+1 {
			t.Fatalf("%d history rows after %d won writes", len(events), round+1)
		}
	}
}

func cancelledLedger(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	record.DueAt = start
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := l.Load(ctx, acme); err == nil {
		t.Error("Load: no error")
	}
	if _, err := l.Due(ctx, start); err == nil {
		t.Error("Due: no error")
	}
	if err := l.SaveResponse(ctx, response(1, 0, "a")); err == nil {
		t.Error("SaveResponse: no error")
	}
	if _, err := l.Write(ctx, rotation.Change{Record: record}); err == nil || errors.Is(err, rotation.ErrConflict) {
		t.Errorf("Write: %v", err)
	}
	loaded, responses := l.load(acme)
	if loaded.Revision != record.Revision || len(responses) != 0 {
		t.Error("calls under a cancelled context took effect")
	}
}

func detached(t *testing.T, l *ledgerUser) {
	full, m := fullRecord(), fullResponse()
	l.save(m)
	l.write(rotation.Change{Record: full})
	full.Current.Fingerprint, full.Puts[0], m.Sealed[0] = "changed", 99, 'x'
	loaded, responses := l.load(acme)
	same(t, "the row", loaded, fullRecord())
	same(t, "the responses", responses, []rotation.TokenResponse{fullResponse()})
	loaded.Attempt.ID = "changed"
	responses[0].Sealed[0] = 'x'
	loaded, responses = l.load(acme)
	same(t, "the row, read again", loaded, fullRecord())
	same(t, "the responses, read again", responses, []rotation.TokenResponse{fullResponse()})
}
