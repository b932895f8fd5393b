package rotationtest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func copiedMints(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	l.save(mint(1, 0, "a"))
	marked := mint(1, 0, "a")
	marked.State = rotation.Rejected
	record.Revision = l.write(rotation.Change{Record: record, Mark: []rotation.Mint{marked}})

	record.Revision = l.write(rotation.Change{Record: record, Copy: []rotation.Mint{mint(1, 0, "a"), mint(1, 0, "b")}})
	loaded, mints := l.load(acme)
	same(t, "the row", loaded, record)
	same(t, "the mints", mints, []rotation.Mint{marked, mint(1, 0, "b")}) // the one that was there stays as it is
	l.save(mint(1, 0, "b"))
	_, mints = l.load(acme)
	same(t, "the mints after saving one again", mints, []rotation.Mint{marked, mint(1, 0, "b")})
}

func mintOnce(t *testing.T, l *ledgerUser) {
	l.create(acme)
	first := mint(1, 0, "a")
	l.save(first)
	l.save(first)
	other := first
	other.Sealed, other.State, other.Parent = []byte("other"), rotation.Rejected, "0123"
	l.save(other)
	_, mints := l.load(acme)
	same(t, "the mints", mints, []rotation.Mint{first})
}

func mintWithoutRow(t *testing.T, l *ledgerUser) {
	l.save(mint(1, 0, "a"))
	record, mints := l.load(acme)
	if record.Revision != "" {
		t.Errorf("the mint made a row with revision %q", record.Revision)
	}
	same(t, "the mints", mints, []rotation.Mint{mint(1, 0, "a")})
	l.create(acme)
	_, mints = l.load(acme)
	same(t, "the mints", mints, []rotation.Mint{mint(1, 0, "a")})
}

// fullMint has a value in every field.
func fullMint() rotation.Mint {
	m := mint(2, 9, "attempt")
	m.Parent, m.State, m.Reason = "0123", rotation.Quarantined, "a reason"
	m.Sealed = []byte{0, 1, 0xff, '\n', '"'}
	m.Expect = &rotation.Identity{ClientID: "client", ResourceOwner: "12", Login: "a@example.com", Company: "34", Repin: true}
	m.APIURL, m.Company = "https://api.example.com", "34"
	return m
}

func everyMintField(t *testing.T, l *ledgerUser) {
	l.save(fullMint())
	_, mints := l.load(acme)
	same(t, "the mint", mints, []rotation.Mint{fullMint()})
}

func largeMint(t *testing.T, l *ledgerUser) {
	large := mint(1, 0, "a")
	large.Sealed = noise(256 << 10)
	l.save(large)
	_, mints := l.load(acme)
	if len(mints) != 1 || !bytes.Equal(mints[0].Sealed, large.Sealed) {
		t.Errorf("256 KiB did not come back as they went")
	}
}

func manyMints(t *testing.T, l *ledgerUser) {
	l.create(acme)
	var want []rotation.Mint
	for generation := range int64(40) { // 2.5 MB: more than one page of any store
		m := mint(1, generation, "a")
		m.Sealed = noise(64 << 10)
		l.save(m)
		want = append(want, m)
	}
	record, mints := l.load(acme)
	same(t, "the mints", mints, want)
	if record.Revision == "" {
		t.Error("the row is missing")
	}
}

func markMint(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	full := fullMint()
	l.save(full)
	l.save(mint(1, 0, "other"))
	mark := rotation.Mint{Connection: acme, Key: full.Key, State: rotation.Rejected, Reason: "of another user"}
	l.write(rotation.Change{Record: record, Mark: []rotation.Mint{mark}})
	full.State, full.Reason = mark.State, mark.Reason
	_, mints := l.load(acme)
	same(t, "the mints", mints, []rotation.Mint{mint(1, 0, "other"), full})
}

func markWithoutMint(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	l.save(mint(1, 0, "a"))
	there, gone := mint(1, 0, "a"), mint(1, 0, "b")
	there.State, gone.State = rotation.Rejected, rotation.Rejected
	change := rotation.Change{Record: record, Mark: []rotation.Mint{there, gone}, History: []rotation.Event{{At: start, Kind: "rejected"}}}
	change.Record.Epoch = 1
	if _, err := l.Write(t.Context(), change); err == nil {
		t.Error("a mint that is not there was marked")
	}
	loaded, mints := l.load(acme)
	same(t, "the row", loaded, record)
	same(t, "the mints", mints, []rotation.Mint{mint(1, 0, "a")})
	same(t, "the history", l.history(acme, 10), []rotation.Event(nil))
}

func mintAfterMark(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	m := mint(1, 0, "a")
	l.save(m)
	rejected := m
	rejected.State, rejected.Reason = rotation.Rejected, "no refresh token"
	l.write(rotation.Change{Record: record, Mark: []rotation.Mint{rejected}})
	l.save(m)
	_, mints := l.load(acme)
	same(t, "the mints", mints, []rotation.Mint{rejected})
}

func buryMint(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	l.save(mint(1, 0, "a"))
	l.save(mint(1, 1, "b"))
	l.save(mint(1, 1, "c"))
	l.write(rotation.Change{Record: record, Bury: []rotation.MintKey{mint(1, 0, "a").Key, mint(1, 1, "c").Key},
		History: []rotation.Event{{At: start, Kind: "buried"}}})
	_, mints := l.load(acme)
	same(t, "the mints", mints, []rotation.Mint{mint(1, 1, "b")})
}

func manySavers(t *testing.T, l *ledgerUser) {
	race(16, func(n int) (struct{}, error) {
		m := mint(1, int64(n/4), "a") // four savers of each
		m.Sealed = fmt.Appendf(nil, "saver %d", n)
		if err := l.SaveMint(t.Context(), m); err != nil {
			t.Errorf("saver %d: %v", n, err)
		}
		return struct{}{}, nil
	})
	_, mints := l.load(acme)
	if len(mints) != 4 {
		t.Errorf("%d mints of 4", len(mints))
	}
	_, again := l.load(acme)
	same(t, "the mints, read again", again, mints)
}
