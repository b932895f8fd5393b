package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func write(t *testing.T, l rotation.Ledger, change rotation.Change) string {
	t.Helper()
	revision, err := l.Write(t.Context(), change)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestList(t *testing.T) {
	ledger := openStore(t, t.TempDir()).Ledger()
	want := map[string]string{}
	for _, name := range []string{"b", "c", "a"} {
		c := token.Connection{Environment: "sandbox", Name: name}
		want[c.String()] = write(t, ledger, rotation.Change{Record: rotation.Record{Connection: c, Status: rotation.Pending}})
	}
	records, err := ledger.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, r := range records {
		order = append(order, r.Connection.Name)
		if r.Revision != want[r.Connection.String()] || r.Status != rotation.Pending {
			t.Errorf("listed %+v", r)
		}
	}
	if !slices.Equal(order, []string{"a", "b", "c"}) {
		t.Errorf("order %q", order)
	}
}

func TestHistoryIsNewestFirstAndForgets(t *testing.T) {
	ledger := openStore(t, t.TempDir()).Ledger()
	record := rotation.Record{Connection: acme}
	day := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for n := range 120 {
		record.Revision = write(t, ledger, rotation.Change{Record: record, History: []rotation.Event{
			{At: day.AddDate(0, 0, n), Kind: "first", Generation: int64(n)}, {At: day.AddDate(0, 0, n), Kind: "second",
				Generation: int64(n)}}})
	}
	events, err := ledger.History(t.Context(), acme, 1000)
	if err != nil || len(events) != 2*91 {
		t.Fatalf("%d events of the last 90 days, %v", len(events), err)
	}
	events, err = ledger.History(t.Context(), acme, 3)
	if err != nil || len(events) != 3 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for i, want := range []rotation.Event{
		{At: day.AddDate(0, 0, 119), Kind: "second", Generation: 119},
		{At: day.AddDate(0, 0, 119), Kind: "first", Generation: 119},
		{At: day.AddDate(0, 0, 118), Kind: "second", Generation: 118},
	} {
		if events[i] != want {
			t.Errorf("event %d is %+v, want %+v", i, events[i], want)
		}
	}
}

// A program that loaded a row before the database was restored from a backup must not win
// against the present row.
func TestRevisionsDoNotRepeatAfterARestore(t *testing.T) {
	dir := t.TempDir()
	ledger := openStore(t, dir).Ledger()
	record := rotation.Record{Connection: acme}
	record.Revision = write(t, ledger, rotation.Change{Record: record})
	restored := record
	stale := record
	stale.Revision = write(t, ledger, rotation.Change{Record: record, History: nil})

	// The backup has the first row; later writes start from it.
	execute(t, filepath.Join(dir, embedded.DatabaseName), fmt.Sprintf("UPDATE record SET revision = '%s'",
		restored.Revision))
	write(t, ledger, rotation.Change{Record: restored})
	if _, err := ledger.Write(t.Context(), rotation.Change{Record: stale}); !errors.Is(err, rotation.ErrConflict) {
		t.Errorf("the stale write got %v", err)
	}
}

func TestRefusedWriteChangesNothing(t *testing.T) {
	ledger := openStore(t, t.TempDir()).Ledger()
	record := rotation.Record{Connection: acme}
	record.Revision = write(t, ledger, rotation.Change{Record: record})
	if err := ledger.SaveResponse(t.Context(), numbered(1)); err != nil {
		t.Fatal(err)
	}
	missing := numbered(2)
	for name, change := range map[string]rotation.Change{
		"stale": {Record: rotation.Record{Connection: acme, Revision: "x"},
			Bury: []rotation.ResponseKey{numbered(1).Key}, History: []rotation.Event{{Kind: "x"}}},
		"missing response": {Record: record, Mark: []rotation.TokenResponse{missing},
			Bury: []rotation.ResponseKey{numbered(1).Key}, History: []rotation.Event{{Kind: "x"}}},
	} {
		if _, err := ledger.Write(t.Context(), change); err == nil {
			t.Errorf("%s: it was written", name)
		}
		again, responses, err := ledger.Load(t.Context(), acme)
		if err != nil || again.Revision != record.Revision || len(responses) != 1 {
			t.Errorf("%s: revision changed or %d responses, %v", name, len(responses), err)
		}
		if events, err := ledger.History(t.Context(), acme, 10); err != nil || len(events) != 0 {
			t.Errorf("%s: %d events, %v", name, len(events), err)
		}
	}
}

// The store must work with virtual time: no call may wait for real time while the clock
// of the others stands still.
func TestUseInABubble(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, b := openStore(t, dir), openStore(t, dir) // as two processes have it
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var all sync.WaitGroup
		for worker := range 8 {
			s := []*embedded.Store{a, b}[worker%2]
			all.Go(func() {
				for won := 0; won < 10; {
					record, _, err := s.Ledger().Load(ctx, acme)
					if err != nil {
						t.Error(err)
						return
					}
					record.Generation++
					if _, err := s.Ledger().Write(ctx, rotation.Change{Record: record}); err == nil {
						won++
					} else if !errors.Is(err, rotation.ErrConflict) {
						t.Error(err)
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		all.Wait()
		if record, _, err := a.Ledger().Load(ctx, acme); err != nil || record.Generation != 80 {
			t.Errorf("generation %d, %v", record.Generation, err)
		}
	})
}

func TestBusyDatabaseSaysSo(t *testing.T) {
	dir := t.TempDir()
	s, holder := openStore(t, dir), openStore(t, dir)
	held, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer close(release)
	all.Go(func() {
		embedded.HoldLock(t.Context(), holder, held, release)
	})
	<-held
	synctest.Test(t, func(t *testing.T) { // the wait passes in virtual time
		inside := openStoreUnlessBusy(t, dir)
		if inside == nil || !strings.Contains(inside.Error(), "another process has kept the database locked") {
			t.Errorf("error %v", inside)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Ledger().SaveResponse(ctx, numbered(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: %v", err)
	}
}

func openStoreUnlessBusy(t *testing.T, dir string) error {
	s, err := embedded.Open(t.Context(), dir)
	if err == nil {
		s.Close()
	}
	return err
}

func TestClosedStore(t *testing.T) {
	s, err := embedded.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Ledger().Load(t.Context(), acme); err == nil || !strings.Contains(err.Error(),
		"loading production/acme") {
		t.Errorf("error %v", err)
	}
}

// Damage that appears later is reported with what to do, by every call.
func TestDamageIsExplained(t *testing.T) {
	dir := t.TempDir()
	s, err := embedded.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		if err := s.Ledger().SaveResponse(t.Context(), numbered(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, embedded.DatabaseName)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	s, err = embedded.Open(t.Context(), dir)
	if err == nil {
		defer s.Close()
		_, _, err = s.Ledger().Load(t.Context(), acme)
	}
	if err == nil || !strings.Contains(err.Error(), "the file is damaged: stop every tokenturn process") ||
		!strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
}

// One row that another program wrote must not keep the others from being rotated.
func TestDueSkipsWhatIsNoConnection(t *testing.T) {
	dir := t.TempDir()
	ledger := openStore(t, dir).Ledger()
	now := time.Now()
	for _, c := range []token.Connection{acme, other} {
		write(t, ledger, rotation.Change{Record: rotation.Record{Connection: c, DueAt: now.Add(-time.Minute)}})
	}
	execute(t, filepath.Join(dir, embedded.DatabaseName), `INSERT INTO record (connection, revision, due_at, json)
		VALUES ('Not A Connection', 'x', 1, '{}'), ('', 'x', 2, '{}'), ('production/', 'x', 3, 'x')`)
	due, err := ledger.Due(t.Context(), now)
	if err != nil || !slices.Equal(due, []token.Connection{acme, other}) {
		t.Errorf("due %v, %v", due, err)
	}
}

// A name to which nobody consented goes with its history a day after its last invitation.
// What has work to do, a response or a consent stays, and so does a name without an end.
func TestPendingRowsExpire(t *testing.T) {
	store := openStore(t, t.TempDir())
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for name, r := range map[string]rotation.Record{
		"expired":   {Status: rotation.Pending, InvitedUntil: now.Add(-25 * time.Hour)},
		"recent":    {Status: rotation.Pending, InvitedUntil: now.Add(-23 * time.Hour)},
		"endless":   {Status: rotation.Pending},
		"due":       {Status: rotation.Pending, InvitedUntil: now.Add(-25 * time.Hour), DueAt: now},
		"answered":  {Status: rotation.Pending, InvitedUntil: now.Add(-25 * time.Hour)},
		"connected": {Status: rotation.Active, InvitedUntil: now.Add(-25 * time.Hour)},
	} {
		r.Connection = token.Connection{Environment: "sandbox", Name: name}
		write(t, store.Ledger(), rotation.Change{Record: r, History: []rotation.Event{{At: now, Kind: "registered"}}})
	}
	response := rotation.TokenResponse{Connection: token.Connection{Environment: "sandbox", Name: "answered"},
		Key: rotation.ResponseKey{Epoch: 1, Attempt: "a"}}
	if err := store.Ledger().SaveResponse(t.Context(), response); err != nil {
		t.Fatal(err)
	}
	invite(t, store, "h", now)
	records, err := store.Ledger().List(t.Context())
	var left []string
	for _, r := range records {
		left = append(left, r.Connection.Name)
	}
	if want := []string{"answered", "connected", "due", "endless", "recent"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left: %q (%v), want %q", left, err, want)
	}
	events, err := store.Ledger().History(t.Context(), token.Connection{Environment: "sandbox", Name: "expired"}, 10)
	if err != nil || len(events) > 0 {
		t.Errorf("the history of the expired one: %v, %v", events, err)
	}
}

// One damaged row must not keep people from being invited, nor the other rows from expiring.
func TestDamagedRowsDoNotStopInvitations(t *testing.T) {
	dir := t.TempDir()
	store := openStore(t, dir)
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	write(t, store.Ledger(), rotation.Change{Record: rotation.Record{Connection: acme, Status: rotation.Pending,
		InvitedUntil: now.Add(-25 * time.Hour)}})
	execute(t, filepath.Join(dir, embedded.DatabaseName), `INSERT INTO record (connection, revision, json) VALUES
		('sandbox/a', 'r', '{'), ('sandbox/b', 'r', ''), ('sandbox/c', 'r', '[]'),
		('sandbox/d', 'r', '{"status":"pending","epoch":"x"}'),
		('sandbox/e', 'r', '{"status":"pending","invited_until":"yesterday"}')`)
	invite(t, store, "h", now)
	if record, _, err := store.Ledger().Load(t.Context(), acme); err != nil || record.Revision != "" {
		t.Errorf("the expired row: %+v, %v", record, err)
	}
	if left := count(t, filepath.Join(dir, embedded.DatabaseName), "record"); left != 5 {
		t.Errorf("%d of 5 damaged rows are left", left)
	}

	// An invitation that is stored is a success, even if nothing can be deleted.
	execute(t, filepath.Join(dir, embedded.DatabaseName), `DROP TABLE mint`)
	invite(t, store, "i", now)
}

// invite stores an invitation for acme and reads it.
func invite(t *testing.T, store *embedded.Store, hash string, now time.Time) {
	t.Helper()
	if err := store.Consents().CreateInvitation(t.Context(), invitations.Invitation{Hash: hash, Connection: acme,
		CreatedAt: now, ExpiresAt: now.Add(time.Hour)}); err != nil {
		t.Error(err)
	}
	if got, err := store.Consents().Invitation(t.Context(), hash); err != nil || got.Connection != acme {
		t.Errorf("the invitation is %+v, %v", got, err)
	}
}
