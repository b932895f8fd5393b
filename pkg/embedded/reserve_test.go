package embedded_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// begin starts an attempt of c.
func begin(t *testing.T, s *embedded.Store, c token.Connection, id string) rotation.Record {
	t.Helper()
	record, _, err := s.Ledger().Load(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	record.Status, record.Attempt = rotation.Active, attempt(id)
	record.Revision = write(t, s.Ledger(), rotation.Change{Record: record})
	return record
}

func attempt(id string) *rotation.Attempt {
	return &rotation.Attempt{ID: id, BegunAt: time.Now(), Until: time.Now().Add(time.Minute), Presentations: 1}
}

// largest is the largest answer to an attempt: 256 KiB, sealed.
func largest(c token.Connection, attempt string) rotation.TokenResponse {
	m := numbered(1)
	m.Connection, m.Key.Attempt = c, attempt
	m.Sealed = bytes.Repeat([]byte("0123456789abcdef"), 256<<10/16+16)
	m.Expect = &rotation.Identity{ClientID: strings.Repeat("c", 500), Login: strings.Repeat("l", 500)}
	m.APIURL, m.Reason = "https://"+strings.Repeat("h", 2000), strings.Repeat("r", 2000)
	return m
}

// has checks that these responses are stored, in this order and with their bytes.
func has(t *testing.T, s *embedded.Store, c token.Connection, want ...rotation.TokenResponse) {
	t.Helper()
	_, responses, err := s.Ledger().Load(t.Context(), c)
	if err != nil || len(responses) != len(want) {
		t.Fatalf("%d responses, %v; want %d", len(responses), err, len(want))
	}
	for i, m := range responses {
		if m.Key != want[i].Key || m.State != want[i].State || !bytes.Equal(m.Sealed, want[i].Sealed) {
			t.Errorf("response %d is %v, %s, of %d bytes", i, m.Key, m.State, len(m.Sealed))
		}
	}
}

func fill(t *testing.T, s *embedded.Store) {
	t.Helper()
	if err := embedded.Fill(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func empty(t *testing.T, s *embedded.Store) {
	t.Helper()
	if err := embedded.Empty(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func save(t *testing.T, s *embedded.Store, m rotation.TokenResponse) {
	t.Helper()
	if err := s.Ledger().SaveResponse(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// The disk fills up after an attempt began. Its answer is still saved, every process sees
// it, and the next write moves it into the database.
func TestAnswerThatTheDatabaseDoesNotTake(t *testing.T) {
	dir := t.TempDir()
	s, other := openStore(t, dir), openStore(t, dir)
	record := begin(t, s, acme, "a")
	answer := largest(acme, "a")
	fill(t, s)
	for range 2 {
		save(t, s, answer)
	}
	for _, s := range []*embedded.Store{s, other, openStore(t, dir)} {
		has(t, s, acme, answer)
	}
	record.Status = rotation.NeedsConsent
	_, err := s.Ledger().Write(t.Context(), rotation.Change{Record: record})
	if err == nil || !strings.Contains(err.Error(), "free space on the disk") {
		t.Errorf("a write that would have to move the answer into the full database: %v", err)
	}
	has(t, other, acme, answer)

	empty(t, s)
	rejected := answer
	rejected.State = rotation.Rejected
	record.Attempt = nil
	record.Revision = write(t, other.Ledger(), rotation.Change{Record: record, Mark: []rotation.TokenResponse{rejected}})
	has(t, s, acme, rejected)
	content := contents(t, dir)[embedded.ReserveName]
	if strings.Contains(content, "attempt/") || len(content) != embedded.SlotSize {
		t.Errorf("the reserve, of %d bytes, still has the answer", len(content))
	}
	save(t, s, answer) // what is there stays as it is
	has(t, s, acme, rejected)
	write(t, s.Ledger(), rotation.Change{Record: record, Bury: []rotation.ResponseKey{answer.Key}})
	has(t, s, acme)
}

// A code that is exchanged without a state, as by a command, has room for its answer, too.
func TestAnExchangeReservesRoom(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	record, _, err := s.Ledger().Load(t.Context(), acme)
	if err != nil {
		t.Fatal(err)
	}
	record.Status = rotation.Pending
	record.Revision = write(t, s.Ledger(), rotation.Change{Record: record})
	record.SearchAt = time.Now().Add(3 * time.Minute)
	write(t, s.Ledger(), rotation.Change{Record: record})
	if got := len(contents(t, dir)[embedded.ReserveName]); got != embedded.SlotSize {
		t.Errorf("the reserve has %d bytes, want %d", got, embedded.SlotSize)
	}
	execute(t, filepath.Join(dir, embedded.DatabaseName),
		`CREATE TRIGGER full BEFORE INSERT ON mint BEGIN SELECT RAISE(ABORT, 'disk full'); END`)
	answer := largest(acme, "exchange")
	answer.Source = rotation.FromCode
	save(t, s, answer)
	has(t, s, acme, answer)
}

// Without an attempt no room is reserved, and a failure is reported.
func TestAnswerWithoutAnAttempt(t *testing.T) {
	s := openStore(t, t.TempDir())
	begin(t, s, acme, "a")
	fill(t, s)
	for name, m := range map[string]rotation.TokenResponse{"other attempt": largest(acme, "b"),
		"other connection": largest(other, "a")} {
		err := s.Ledger().SaveResponse(t.Context(), m)
		if err == nil || !strings.Contains(err.Error(), "no room is reserved") {
			t.Errorf("%s: %v", name, err)
		}
	}
	has(t, s, acme)
	has(t, s, other)
}

// The room for the answer to a code is reserved when its state is consumed.
func TestAnswerToACode(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	now := time.Now()
	hour := now.Add(time.Hour)
	k := s.Consents()
	states := []invitations.State{{Hash: "s1"}, {Hash: "s2"}}
	for i := range states {
		states[i].Cookie, states[i].Environment, states[i].Connection = "c", acme.Environment, acme
		states[i].Invitation, states[i].CreatedAt, states[i].ExpiresAt = "i", now, hour
	}
	invitation := invitations.Invitation{Hash: "i", Connection: acme, CreatedAt: now, ExpiresAt: hour}
	if err := k.CreateInvitation(t.Context(), invitation); err != nil {
		t.Fatal(err)
	}
	for _, state := range states {
		if err := k.Start(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Consume(t.Context(), state.Hash, "c", acme.Environment, "nonce", now); err != nil {
			t.Fatal(err)
		}
	}
	var answers []rotation.TokenResponse
	fill(t, s)
	for i := range states {
		m := largest(acme, fmt.Sprint("exchange ", i))
		m.Source = rotation.FromCode
		save(t, s, m)
		answers = append(answers, m)
	}
	has(t, s, acme, answers...)
	empty(t, s)
	for _, state := range states {
		if err := k.Conclude(t.Context(), state, "verifying", false, now); err != nil { // moves nothing, loses nothing
			t.Fatal(err)
		}
	}
	has(t, s, acme, answers...)
	write(t, s.Ledger(), rotation.Change{Record: rotation.Record{Connection: acme}})
	has(t, openStore(t, dir), acme, answers...)
	if slots := reserved(t, dir); slots != 2 {
		t.Errorf("the reserve has %d slots", slots)
	}
}

func reserved(t *testing.T, dir string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, embedded.ReserveName))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size() / embedded.SlotSize
}

// Concurrent attempts have a slot each. Slots of ended attempts are used again, also after
// a crash.
func TestSlotsAreUsedAgain(t *testing.T) {
	dir := t.TempDir()
	connection := func(n int) token.Connection {
		return token.Connection{Environment: "sandbox", Name: fmt.Sprint("c", n)}
	}
	answer := func(c token.Connection, attempt string) rotation.TokenResponse {
		m := numbered(1)
		m.Connection, m.Key.Attempt = c, attempt
		return m
	}
	survivor := answer(connection(3), "a")
	survivor.Sealed = largest(acme, "").Sealed // which the database cannot take
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, dir)
		for n := range 12 {
			record := begin(t, s, acme, fmt.Sprint(n))
			switch n % 3 {
			case 0: // the answer is saved
				save(t, s, answer(acme, fmt.Sprint(n)))
			case 1: // the attempt ends without one
				record.Attempt = nil
				write(t, s.Ledger(), rotation.Change{Record: record})
			} // or gives way to the next one
		}
		if slots := reserved(t, dir); slots != 1 {
			t.Errorf("%d slots after one attempt at a time", slots)
		}
		for n := range 12 {
			begin(t, s, connection(n), "a")
		}
		if slots := reserved(t, dir); slots < 12 || slots > 13 {
			t.Errorf("%d slots for 12 attempts at once", slots)
		}
		fill(t, s)
		save(t, s, survivor) // the others died
		empty(t, s)
		time.Sleep(3 * time.Minute)
		for n := 4; n < 12; n++ {
			begin(t, s, connection(n), "b")
		}
		if slots := reserved(t, dir); slots > 13 {
			t.Errorf("%d slots after a crash", slots)
		}
		has(t, s, connection(3), survivor)
		time.Sleep(3 * time.Minute)
		begin(t, s, acme, "last")
	})
	s := openStore(t, dir)
	if slots := reserved(t, dir); slots != 8 {
		t.Errorf("%d slots once the store is opened", slots)
	}
	has(t, s, connection(3), survivor)
}

// A crash can leave the answer of a slot's former claim. It does not count for the new one.
func TestSlotOfAnother(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	record := begin(t, s, acme, "a")
	fill(t, s)
	save(t, s, largest(acme, "a"))
	path := filepath.Join(dir, embedded.ReserveName)
	left, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	empty(t, s)
	record.Attempt = nil
	record.Revision = write(t, s.Ledger(), rotation.Change{Record: record})
	write(t, s.Ledger(), rotation.Change{Record: record, Bury: []rotation.ResponseKey{largest(acme, "a").Key}})
	if err := os.WriteFile(path, left, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []token.Connection{other, acme} {
		record := begin(t, s, c, "b")
		has(t, s, c)
		fill(t, s)
		save(t, s, largest(c, "b"))
		has(t, s, c, largest(c, "b"))
		empty(t, s)
		record.Attempt = nil
		write(t, s.Ledger(), rotation.Change{Record: record})
		has(t, s, c, largest(c, "b"))
		if err := os.WriteFile(path, left, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openStore(t, dir) // tidies
	if strings.Contains(contents(t, dir)[embedded.ReserveName], "attempt/") {
		t.Error("what was left in the slot is still there")
	}
}

// A file system may compress the filling of a slot, or not store it at all if it is zeros.
func TestSlotsAreFilled(t *testing.T) {
	dir := t.TempDir()
	begin(t, openStore(t, dir), acme, "a")
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(contents(t, dir)[embedded.ReserveName])); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil || packed.Len() < embedded.SlotSize {
		t.Errorf("a slot of %d bytes is %d when compressed, %v", embedded.SlotSize, packed.Len(), err)
	}
}

// A slot that a crash left incomplete has no answer.
func TestSlotWrittenInPart(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	begin(t, s, acme, "a")
	fill(t, s)
	save(t, s, largest(acme, "a"))
	path := filepath.Join(dir, embedded.ReserveName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 25, 60, 300_000} {
		torn := bytes.Clone(whole)
		copy(torn[at:], make([]byte, 100_000))
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		has(t, s, acme)
	}
	save(t, s, largest(acme, "a"))
	has(t, s, acme, largest(acme, "a"))
	if err := os.Remove(path); err != nil { // as in a backup
		t.Fatal(err)
	}
	has(t, s, acme)
}

// An attempt does not begin if the reserve cannot be made, and the row stays as it was.
func TestNoAttemptWithoutReserve(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	revision := write(t, s.Ledger(), rotation.Change{Record: rotation.Record{Connection: acme}})
	if err := os.Mkdir(filepath.Join(dir, embedded.ReserveName), 0o700); err != nil {
		t.Fatal(err)
	}
	change := rotation.Change{Record: rotation.Record{Connection: acme, Revision: revision, Attempt: attempt("a")}}
	_, err := s.Ledger().Write(t.Context(), change)
	if err == nil || !strings.Contains(err.Error(), dir) || errors.Is(err, rotation.ErrConflict) {
		t.Errorf("beginning: %v", err)
	}
	record, _, err := s.Ledger().Load(t.Context(), acme)
	if err != nil || record.Revision != revision || record.Attempt != nil {
		t.Errorf("the row is %+v, %v", record, err)
	}
	if err := os.Remove(filepath.Join(dir, embedded.ReserveName)); err != nil {
		t.Fatal(err)
	}
	begin(t, s, acme, "a")
}

// Only the beginning of an attempt needs room; ending or continuing one does not.
func TestWritesThatBeginNothing(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	record := begin(t, s, acme, "a")
	save(t, s, largest(acme, "a"))
	if err := os.Remove(filepath.Join(dir, embedded.ReserveName)); err != nil {
		t.Fatal(err)
	}
	record.Attempt.Refused = true
	record.Revision = write(t, s.Ledger(), rotation.Change{Record: record})
	record.Attempt = nil
	write(t, s.Ledger(), rotation.Change{Record: record})
	if _, err := os.Stat(filepath.Join(dir, embedded.ReserveName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the reserve was made: %v", err)
	}
}
