package rotationtest

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func copiedResponses(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	l.save(response(1, 0, "a"))
	marked := response(1, 0, "a")
	marked.State = rotation.Rejected
	record.Revision = l.write(rotation.Change{Record: record, Mark: []rotation.TokenResponse{marked}})

	record.Revision = l.write(rotation.Change{Record: record, Copy: []rotation.TokenResponse{response(1, 0, "a"),
		response(1, 0, "b")}})
	loaded, responses := l.load(acme)
	same(t, "the row", loaded, record)
	// the one that was there stays as it is
	same(t, "the responses", responses, []rotation.TokenResponse{marked, response(1, 0, "b")})
	l.save(response(1, 0, "b"))
	_, responses = l.load(acme)
	same(t, "the responses after saving one again", responses, []rotation.TokenResponse{marked, response(1, 0, "b")})
}

// A copy never replaces a response with the same key, even if it differs in everything else,
// or if the write does nothing else.
func copyOverResponse(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	full := fullResponse()
	l.save(full)
	other := response(full.Key.Epoch, full.Key.Generation, full.Key.Attempt)
	other.Sealed, other.Reason, other.Parent = []byte("other"), "another reason", "4567"
	record.Revision = l.write(rotation.Change{Record: record, Copy: []rotation.TokenResponse{other}})
	loaded, responses := l.load(acme)
	same(t, "the row", loaded, record)
	same(t, "the responses", responses, []rotation.TokenResponse{full})

	mark := rotation.TokenResponse{Connection: acme, Key: full.Key, State: rotation.Rejected, Reason: "of another user"}
	record.Revision = l.write(rotation.Change{Record: record, Mark: []rotation.TokenResponse{mark}})
	full.State, full.Reason = mark.State, mark.Reason
	l.write(rotation.Change{Record: record, Copy: []rotation.TokenResponse{other},
		History: []rotation.Event{{At: start, Kind: "copied"}}})
	_, responses = l.load(acme)
	same(t, "the responses after a mark", responses, []rotation.TokenResponse{full})
}

func copiedTwice(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	other := response(1, 0, "a")
	other.Sealed = []byte("sealed elsewhere")
	l.write(rotation.Change{Record: record,
		Copy: []rotation.TokenResponse{response(1, 0, "a"), other, response(1, 0, "b"), other}})
	_, responses := l.load(acme)
	same(t, "the responses", responses, []rotation.TokenResponse{response(1, 0, "a"), response(1, 0, "b")})
}

// largeChange is more than some stores can do in one write. Burying may take further writes.
func largeChange(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	marked := response(0, 0, "marked")
	l.save(marked)
	marked.State = rotation.Rejected
	var copies []rotation.TokenResponse
	for generation := range int64(120) {
		copies = append(copies, response(1, generation, "a"))
	}
	record.Revision = l.write(rotation.Change{Record: record, Copy: copies, Mark: []rotation.TokenResponse{marked},
		History: []rotation.Event{{At: start, Kind: "copied"}}})
	loaded, responses := l.load(acme)
	same(t, "the row", loaded, record)
	same(t, "the responses", responses, append([]rotation.TokenResponse{marked}, copies...))

	for range 2 {
		var live []rotation.ResponseKey
		for _, m := range responses[1:] {
			live = append(live, m.Key)
		}
		record.Revision = l.write(rotation.Change{Record: record, Bury: append(live, live...),
			History: []rotation.Event{{At: start, Kind: "buried"}}})
		_, responses = l.load(acme)
	}
	same(t, "the responses", responses, []rotation.TokenResponse{marked})
	if events := l.history(acme, 10); len(events) != 3 {
		t.Errorf("%d history rows of three writes", len(events))
	}
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

// fullResponse has a value in every field.
func fullResponse() rotation.TokenResponse {
	m := response(2, 9, "attempt")
	m.Parent, m.State, m.Reason = "0123", rotation.Quarantined, "a reason"
	m.Sealed = []byte{0, 1, 0xff, '\n', '"'}
	m.Expect = &rotation.Identity{ClientID: "client", ResourceOwner: "12", Login: "a@example.com", Company: "34",
		CompanyName: "Acme", Repin: true}
	m.APIURL, m.Company, m.Before, m.Consent = "https://api.example.com", "34", 5400, "consent"
	m.Client = "89ab"
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

// attemptsAnswer is an attempt with the largest possible answer: 256 KiB and what sealing adds.
func attemptsAnswer(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	record.Attempt = &rotation.Attempt{ID: "a", Fingerprint: "0123", BegunAt: start, Until: start.Add(time.Minute)}
	record.Revision = l.write(rotation.Change{Record: record})
	loaded, responses := l.load(acme)
	same(t, "the row with an attempt", loaded, record)
	same(t, "the responses before the answer", responses, []rotation.TokenResponse(nil))

	answer := fullResponse()
	answer.Key, answer.Sealed = rotation.ResponseKey{Generation: 1, Attempt: "a"}, noise(256<<10+1024)
	l.save(answer)
	loaded, responses = l.load(acme)
	same(t, "the row after the answer", loaded, record)
	same(t, "the answer", responses, []rotation.TokenResponse{answer})

	record.Attempt.Refused = true // the same attempt goes on
	record.Revision = l.write(rotation.Change{Record: record})
	mark := rotation.TokenResponse{Connection: acme, Key: answer.Key, State: rotation.Rejected, Reason: "too large"}
	record.Attempt = &rotation.Attempt{ID: "b", Fingerprint: "0123", BegunAt: start, Until: start.Add(time.Hour)}
	record.Revision = l.write(rotation.Change{Record: record, Mark: []rotation.TokenResponse{mark}})
	answer.State, answer.Reason = mark.State, mark.Reason
	record.Attempt = nil
	record.Revision = l.write(rotation.Change{Record: record})
	loaded, responses = l.load(acme)
	same(t, "the row without an attempt", loaded, record)
	same(t, "the marked answer", responses, []rotation.TokenResponse{answer})
	l.save(response(0, 1, "b")) // of an attempt that is over
	_, responses = l.load(acme)
	same(t, "the responses", responses, []rotation.TokenResponse{answer, response(0, 1, "b")})
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
	for _, attempt := range []string{"a", "d", "e"} {
		l.save(response(1, 0, attempt))
	}
	there, gone := response(1, 0, "a"), response(1, 0, "b")
	there.State, gone.State = rotation.Rejected, rotation.Rejected
	ofNobody := gone
	ofNobody.Connection.Name = "nobody"
	buried := response(1, 0, "d")
	record.Revision = l.write(rotation.Change{Record: record, Bury: []rotation.ResponseKey{buried.Key}})
	buried.State = rotation.Rejected
	for _, marks := range [][]rotation.TokenResponse{{gone}, {buried}, {ofNobody}, {there, gone}, {gone, there}} {
		change := rotation.Change{Record: record, Mark: marks}
		change.Record.Epoch, change.Record.DueAt = 1, start
		l.conflicts(change) // so that the engine loads and sees that the response is gone
		change.Copy = []rotation.TokenResponse{response(1, 0, "c")}
		change.Bury = []rotation.ResponseKey{response(1, 0, "e").Key}
		change.History = []rotation.Event{{At: start, Kind: "rejected"}}
		l.conflicts(change)
	}
	loaded, responses := l.load(acme)
	same(t, "the row", loaded, record)
	if loaded.Revision != record.Revision {
		t.Errorf("loaded revision %q, written %q", loaded.Revision, record.Revision)
	}
	same(t, "the responses", responses, []rotation.TokenResponse{response(1, 0, "a"), response(1, 0, "e")})
	same(t, "the history", l.history(acme, 10), []rotation.Event(nil))
	same(t, "due", l.due(start), []token.Connection(nil))
	_, responses = l.load(ofNobody.Connection)
	same(t, "the responses of nobody", responses, []rotation.TokenResponse(nil))
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
