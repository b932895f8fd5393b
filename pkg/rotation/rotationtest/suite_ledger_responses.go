package rotationtest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func copiedResponses(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	l.save(response(1, 0, "a"))
	marked := response(1, 0, "a")
	marked.State = rotation.Rejected
	record.Revision = l.write(rotation.Change{Record: record, Mark: []rotation.TokenResponse{marked}})

	record.Revision = l.write(rotation.Change{Record: record, Copy: []rotation.TokenResponse{response(1, 0, "a"), response(1, 0, "b")}})
	loaded, responses := l.load(acme)
	same(t, "the row", loaded, record)
	same(t, "the responses", responses, []rotation.TokenResponse{marked, response(1, 0, "b")}) // the one that was there stays as it is
	l.save(response(1, 0, "b"))
	_, responses = l.load(acme)
	same(t, "the responses after saving one again", responses, []rotation.TokenResponse{marked, response(1, 0, "b")})
}

func responseOnce(t *testing.T, l *ledgerUser) {
	l.create(acme)
	first := response(1, 0, "a")
	l.save(first)
	l.save(first)
	other := first
	other.Sealed, other.State, other.Parent = []byte("other"), rotation.Rejected, "0123"
	l.save(other)
	_, responses := l.load(acme)
	same(t, "the responses", responses, []rotation.TokenResponse{first})
}

func responseWithoutRow(t *testing.T, l *ledgerUser) {
	l.save(response(1, 0, "a"))
	record, responses := l.load(acme)
	if record.Revision != "" {
		t.Errorf("the response made a row with revision %q", record.Revision)
	}
	same(t, "the responses", responses, []rotation.TokenResponse{response(1, 0, "a")})
	l.create(acme)
	_, responses = l.load(acme)
	same(t, "the responses", responses, []rotation.TokenResponse{response(1, 0, "a")})
}

// fullMint has a value in every field.
func fullResponse() rotation.TokenResponse {
	m := response(2, 9, "attempt")
	m.Parent, m.State, m.Reason = "0123", rotation.Quarantined, "a reason"
	m.Sealed = []byte{0, 1, 0xff, '\n', '"'}
	m.Expect = &rotation.Identity{ClientID: "client", ResourceOwner: "12", Login: "a@example.com", Company: "34", Repin: true}
	m.APIURL, m.Company = "https://api.example.com", "34"
	return m
}

func everyResponseField(t *testing.T, l *ledgerUser) {
	l.save(fullResponse())
	_, responses := l.load(acme)
	same(t, "the response", responses, []rotation.TokenResponse{fullResponse()})
}

func largeResponse(t *testing.T, l *ledgerUser) {
	large := response(1, 0, "a")
	large.Sealed = noise(256 << 10)
	l.save(large)
	_, responses := l.load(acme)
	if len(responses) != 1 || !bytes.Equal(responses[0].Sealed, large.Sealed) {
		t.Errorf("256 KiB did not come back as they went")
	}
}

func manyResponses(t *testing.T, l *ledgerUser) {
	l.create(acme)
	var want []rotation.TokenResponse
	for generation := range int64(40) { // 2.5 MB: more than one page of any store
		m := response(1, generation, "a")
		m.Sealed = noise(64 << 10)
		l.save(m)
		want = append(want, m)
	}
	record, responses := l.load(acme)
	same(t, "the responses", responses, want)
	if record.Revision == "" {
		t.Error("the row is missing")
	}
}

func markResponse(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	full := fullResponse()
	l.save(full)
	l.save(response(1, 0, "other"))
	mark := rotation.TokenResponse{Connection: acme, Key: full.Key, State: rotation.Rejected, Reason: "of another user"}
	l.write(rotation.Change{Record: record, Mark: []rotation.TokenResponse{mark}})
	full.State, full.Reason = mark.State, mark.Reason
	_, responses := l.load(acme)
	same(t, "the responses", responses, []rotation.TokenResponse{response(1, 0, "other"), full})
}

func markWithoutResponse(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	l.save(response(1, 0, "a"))
	there, gone := response(1, 0, "a"), response(1, 0, "b")
	there.State, gone.State = rotation.Rejected, rotation.Rejected
	change := rotation.Change{Record: record, Mark: []rotation.TokenResponse{there, gone}, History: []rotation.Event{{At: start, Kind: "rejected"}}}
	change.Record.Epoch = 1
	if _, err := l.Write(t.Context(), change); err == nil {
		t.Error("a response that is not there was marked")
	}
	loaded, responses := l.load(acme)
	same(t, "the row", loaded, record)
	same(t, "the responses", responses, []rotation.TokenResponse{response(1, 0, "a")})
	same(t, "the history", l.history(acme, 10), []rotation.Event(nil))
}

func responseAfterMark(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	m := response(1, 0, "a")
	l.save(m)
	rejected := m
	rejected.State, rejected.Reason = rotation.Rejected, "no refresh token"
	l.write(rotation.Change{Record: record, Mark: []rotation.TokenResponse{rejected}})
	l.save(m)
	_, responses := l.load(acme)
	same(t, "the responses", responses, []rotation.TokenResponse{rejected})
}

func buryResponse(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	l.save(response(1, 0, "a"))
	l.save(response(1, 1, "b"))
	l.save(response(1, 1, "c"))
	l.write(rotation.Change{Record: record, Bury: []rotation.ResponseKey{response(1, 0, "a").Key, response(1, 1, "c").Key},
		History: []rotation.Event{{At: start, Kind: "buried"}}})
	_, responses := l.load(acme)
	same(t, "the responses", responses, []rotation.TokenResponse{response(1, 1, "b")})
}

func manySavers(t *testing.T, l *ledgerUser) {
	race(16, func(n int) (struct{}, error) {
		m := response(1, int64(n/4), "a") // four savers of each
		m.Sealed = fmt.Appendf(nil, "saver %d", n)
		if err := l.SaveResponse(t.Context(), m); err != nil {
			t.Errorf("saver %d: %v", n, err)
		}
		return struct{}{}, nil
	})
	_, responses := l.load(acme)
	if len(responses) != 4 {
		t.Errorf("%d responses of 4", len(responses))
	}
	_, again := l.load(acme)
	same(t, "the responses, read again", again, responses)
}
