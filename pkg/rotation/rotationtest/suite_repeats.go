package rotationtest

import (
	"errors"
	"net/http"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// TestLedgerRepeats is the part of the contract for stores behind a network. A write that the
// client delivered twice is one write, and a refusal because of the first delivery is a
// success. Each call of open returns an empty ledger. Its client sends everything through
// transport and, as clients do, tries again after a connection reset.
func TestLedgerRepeats(t *testing.T, open func(t *testing.T, transport http.RoundTripper) rotation.Ledger) {
	for name, repeater := range sorted(Repeaters) {
		t.Run(name, func(t *testing.T) { repeatedLedger(t, &ledgerUser{t, open(t, repeater(http.DefaultTransport))}) })
	}
}

func repeatedLedger(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	l.save(response(1, 0, "a"))
	l.save(response(1, 0, "b"))

	stale := record
	record.Epoch, record.DueAt = 1, start
	marked := response(1, 0, "a")
	marked.State = rotation.Rejected
	record.Revision = l.write(rotation.Change{Record: record, Copy: []rotation.TokenResponse{response(1, 0, "c")},
		Mark: []rotation.TokenResponse{marked},
		Bury: []rotation.ResponseKey{response(1, 0, "b").Key}, History: []rotation.Event{{At: start, Kind: "decided"}}})
	record.Generation = 1
	record.Revision = l.write(rotation.Change{Record: record})

	loaded, responses := l.load(acme)
	same(t, "the row", loaded, record)
	if loaded.Revision != record.Revision {
		t.Errorf("loaded revision %q, written %q", loaded.Revision, record.Revision)
	}
	same(t, "the responses", responses, []rotation.TokenResponse{marked, response(1, 0, "c")})
	same(t, "the history", l.history(acme, 10), []rotation.Event{{At: start, Kind: "decided"}})

	// A conflict with another writer stays a conflict, even with the same content.
	l.conflicts(rotation.Change{Record: stale})
	stale.Epoch, stale.DueAt = 1, start
	l.conflicts(rotation.Change{Record: stale})
	l.conflicts(rotation.Change{Record: rotation.Record{Connection: acme}})

	winners := 0
	for _, r := range race(8, func(int) (string, error) { return l.Write(t.Context(), rotation.Change{Record: record}) }) {
		switch {
		case r.err == nil:
			winners++
		case !errors.Is(r.err, rotation.ErrConflict):
			t.Errorf("a loser got %v, want ErrConflict", r.err)
		}
	}
	if winners != 1 {
		t.Errorf("%d of 8 equal writes with one revision won", winners)
	}
}

// TestSecretStoreRepeats is TestLedgerRepeats for a rotation.SecretStore.
func TestSecretStoreRepeats(t *testing.T, open func(t *testing.T, transport http.RoundTripper) rotation.SecretStore) {
	for name, repeater := range sorted(Repeaters) {
		t.Run(name, func(t *testing.T) {
			repeatedSecretStore(t, &secretStoreUser{t, open(t, repeater(http.DefaultTransport))})
		})
	}
}

func repeatedSecretStore(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.put(acme, 2)
	v.promote(acme, 2, 1)
	v.put(acme, 3)
	v.promote(acme, 3, 2)
	v.isCurrent(acme, 3)
	v.holds(acme, 1, 2, 3)

	refuses(t, "Create with another version", v.Create(t.Context(), acme, id(4), value(4)), rotation.ErrVersionTaken)
	refuses(t, "Put of other content", v.Put(t.Context(), acme, id(3), value(9)), rotation.ErrVersionTaken)
	refuses(t, "Promote from a former version", v.Promote(t.Context(), acme, id(1), id(2)), rotation.ErrNotCurrent)
	refuses(t, "Put without a secret", v.Put(t.Context(), token.Connection{Environment: "sandbox", Name: "none"}, id(1),
		value(1)),
		rotation.ErrNoSecret)
	v.isCurrent(acme, 3)
	v.holds(acme, 1, 2, 3)
}
