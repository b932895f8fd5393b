package rotationtest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func history(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	var want []rotation.Event
	for n := range 30 {
		event := rotation.Event{At: start.Add(time.Duration(n) * time.Second), Kind: "decided", Epoch: 1,
			Generation: int64(n), Attempt: fmt.Sprint("attempt ", n), Detail: "a detail"}
		record.Revision = l.write(rotation.Change{Record: record, History: []rotation.Event{event}})
		want = slices.Insert(want, 0, event)
	}
	same(t, "the history", l.history(acme, 100), want)
	same(t, "its newest rows", l.history(acme, 2), want[:2])
	if _, responses := l.load(acme); len(responses) != 0 {
		t.Errorf("history rows came back as responses: %v", responses)
	}
}

func historyOfOneInstant(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	kinds := map[string]bool{}
	for n := range 3 {
		var events []rotation.Event
		for m := range 3 {
			kind := fmt.Sprintf("kind-%d-%d", n, m)
			kinds[kind] = true
			events = append(events, rotation.Event{At: start, Kind: kind})
		}
		record.Revision = l.write(rotation.Change{Record: record, History: events})
	}
	for _, event := range l.history(acme, 100) {
		delete(kinds, event.Kind)
	}
	if len(kinds) != 0 {
		t.Errorf("lost of nine rows of one instant: %v", kinds)
	}
}

func dueOrder(t *testing.T, l *ledgerUser) {
	at := func(name string, due time.Time) token.Connection {
		c := token.Connection{Environment: "sandbox", Name: name}
		l.write(rotation.Change{Record: rotation.Record{Connection: c, Status: rotation.Active, DueAt: due}})
		return c
	}
	now := start.Truncate(time.Second)
	second := at("b", now.Add(-time.Second))
	first := at("c", now.Add(-48*time.Hour))
	third := at("a", now)
	later := at("d", now.Add(time.Second))
	at("e", time.Time{})
	same(t, "due", l.due(now), []token.Connection{first, second, third})
	same(t, "due a second later", l.due(now.Add(time.Second)), []token.Connection{first, second, third, later})
	same(t, "due long ago", l.due(now.Add(-72*time.Hour)), []token.Connection(nil))
}

func dueFollows(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	now := start.Truncate(time.Second)
	for _, step := range []struct {
		due  time.Time
		want []token.Connection
	}{
		{now, []token.Connection{acme}},
		{now.Add(time.Hour), nil},
		{now.Add(-time.Hour), []token.Connection{acme}},
		{time.Time{}, nil},
		{now, []token.Connection{acme}},
	} {
		record.DueAt = step.due
		record.Revision = l.write(rotation.Change{Record: record})
		same(t, fmt.Sprintf("due with DueAt %v", step.due), l.due(now), step.want)
	}
}

func dueMany(t *testing.T, l *ledgerUser) {
	now := start.Truncate(time.Second)
	var want []token.Connection
	for n := range 500 {
		c := token.Connection{Environment: "sandbox", Name: fmt.Sprintf("customer-with-a-rather-long-name-%d", n)}
		l.write(rotation.Change{Record: rotation.Record{Connection: c, DueAt: now.Add(time.Duration(n-500) * time.Second)}})
		want = append(want, c)
	}
	same(t, "due", l.due(now), want)
	if listed := len(l.list()); listed != 500 {
		t.Errorf("listed %d of 500", listed)
	}
}

func similarNames(t *testing.T, l *ledgerUser) {
	names := []string{"sandbox/a", "sandbox/ab", "sandbox/a-b", "sandbox/a-", "sandbox/b", "sandbox-a/b", "sandbo/xa"}
	for n, name := range names {
		c := must(token.ParseConnection(name))
		m := response(1, 0, "a")
		m.Connection, m.Sealed = c, []byte(name)
		l.save(m)
		l.write(rotation.Change{Record: rotation.Record{Connection: c, Generation: int64(n)},
			History: []rotation.Event{{At: start, Kind: "created", Detail: name}}})
	}
	for n, name := range names {
		c := must(token.ParseConnection(name))
		record, responses := l.load(c)
		if record.Connection != c || record.Generation != int64(n) || len(responses) != 1 ||
			string(responses[0].Sealed) != name {
			t.Errorf("%s has row %v (%d) and responses %v", name, record.Connection, record.Generation, responses)
		}
		same(t, "the history of "+name, l.history(c, 10), []rotation.Event{{At: start, Kind: "created", Detail: name}})
	}
	a := must(token.ParseConnection("sandbox/a"))
	record, _ := l.load(a)
	l.write(rotation.Change{Record: record, Bury: []rotation.ResponseKey{response(1, 0, "a").Key}})
	if _, responses := l.load(must(token.ParseConnection("sandbox/ab"))); len(responses) != 1 {
		t.Error("burying a response of sandbox/a buried that of sandbox/ab")
	}
}

func removed(t *testing.T, l *ledgerUser) {
	other := l.create(token.Connection{Environment: "sandbox", Name: "acme-2"})
	kept := []rotation.Event{{At: start, Kind: "registered"}}
	other.Revision = l.write(rotation.Change{Record: other, History: kept})
	record := l.create(acme)
	for n := range 30 { // in one write a store may keep some of them elsewhere
		var events []rotation.Event
		for m := range 5 {
			events = append(events, rotation.Event{At: start.Add(time.Duration(n) * time.Second), Kind: "decided",
				Generation: int64(m)})
		}
		record.DueAt = start
		record.Revision = l.write(rotation.Change{Record: record, History: events})
	}
	for range 2 { // the second time there is nothing left to remove
		if err := l.remove(record); err != nil {
			t.Fatal(err)
		}
		if loaded, _ := l.load(acme); loaded.Revision != "" {
			t.Errorf("the row is still there: %+v", loaded)
		}
		same(t, "the history", l.history(acme, 1000), []rotation.Event(nil))
		same(t, "due", l.due(start.Add(time.Minute)), []token.Connection(nil))
		same(t, "the list", l.list(), []rotation.Record{other})
	}
	same(t, "another connection's history", l.history(other.Connection, 10), kept)
	l.create(acme) // the name can be used again
}

func notRemoved(t *testing.T, l *ledgerUser) {
	record := l.create(acme)
	stale := record
	events := []rotation.Event{{At: start, Kind: "decided"}}
	record.Revision = l.write(rotation.Change{Record: record, History: events})
	refuses(t, "Remove with a former revision", l.remove(stale), rotation.ErrConflict)
	refuses(t, "Remove of a row that was not there", l.remove(rotation.Record{Connection: acme}), rotation.ErrConflict)
	l.save(response(1, 0, "a"))
	refuses(t, "Remove with a response", l.remove(record), rotation.ErrConflict)
	loaded, responses := l.load(acme)
	same(t, "the row", loaded, record)
	same(t, "the responses", responses, []rotation.TokenResponse{response(1, 0, "a")})
	same(t, "the history", l.history(acme, 10), events)

	late := response(1, 0, "a") // of a connection that is already removed
	late.Connection.Name = "removed"
	l.save(late)
	refuses(t, "Remove with a response and no row", l.remove(rotation.Record{Connection: late.Connection}),
		rotation.ErrConflict)
	_, responses = l.load(late.Connection)
	same(t, "the late response", responses, []rotation.TokenResponse{late})
}
