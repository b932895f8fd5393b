package console

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// FuzzQuery: a query that was read is written and read the same, and finds rows without a panic.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "q=acme&status=attention&sort=due&page=2", "q=%zz", "page=-1", "q=\x00%ff",
		"sort=x;y", "page=99999999999999999999", "q=+%20+", "status=attention&status="} {
		f.Add(seed)
	}
	rows := []tracked{
		{row: row{Connection: token.Connection{Environment: "a", Name: "b"}, Tone: "good", Status: "active"}},
		{row: row{Connection: token.Connection{Environment: "c", Name: "d"}, Tone: "bad", Need: need{Rank: 1}}}}
	f.Fuzz(func(t *testing.T, raw string) {
		q := parseQuery(raw)
		if again := parseQuery(q.String()); again != q {
			t.Errorf("%q is %+v, and its text %q is %+v", raw, q, q.String(), again)
		}
		if len([]rune(q.Q)) > maxSearch || q.Page < 1 {
			t.Errorf("%+v", q)
		}
		l := q.choose(rows)
		if l.Total < len(l.Rows) || l.From < 1 {
			t.Errorf("%+v", l)
		}
		if u, err := url.Parse(q.address()); err != nil || u.Path != "/" {
			t.Errorf("address %q", q.address())
		}
	})
}

// FuzzPath: what is no path of the console has no route, and what has one is spelled exactly so.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/", "/connections/a/b", "/connections/a/b/rotate", "/connections/../x", "//",
		"0/connections/0/0", "/events"} {
		f.Add(seed)
	}
	h := &Handler{cfg: Config{}, public: &url.URL{Scheme: "http", Host: "localhost"}}
	f.Fuzz(func(t *testing.T, path string) {
		found, known := h.route(path)
		if !known {
			return
		}
		if !h.Owns(path) {
			t.Errorf("%q is served and not owned", path)
		}
		rest, one := strings.CutPrefix(path, "/connections/")
		if !one {
			if found.pattern != path && found.pattern != "/{$}" {
				t.Errorf("%q is served by %s", path, found.pattern)
			}
			return
		}
		parts := strings.Split(rest, "/")
		if c, err := token.ParseConnection(parts[0] + "/" + parts[1]); err != nil || !strings.HasPrefix(rest, c.String()) ||
			len(parts) > 3 {
			t.Errorf("%q is served", path)
		}
	})
}

// The script has the same words for times.
func TestDistances(t *testing.T) {
	now := time.Now()
	for after, want := range map[time.Duration]string{0: "now", 500 * time.Millisecond: "now", 30 * time.Second: "in 30 s",
		-119 * time.Second: "119 s ago", 2 * time.Minute: "in 2 min", -119 * time.Minute: "119 min ago",
		47 * time.Hour: "in 47 h", -72 * time.Hour: "3 days ago"} {
		if got := distance(now.Add(after), now); got != want {
			t.Errorf("%v: %q, want %q", after, got, want)
		}
	}
	for verb, want := range map[string][2]string{"due": {"in 9 s", "now"},
		"expires": {"expires in 9 s", "expired 9 s ago"}} {
		got := [2]string{inSentence(verb, now.Add(9*time.Second), now), inSentence(verb, now.Add(-9*time.Second), now)}
		if got != want {
			t.Errorf("%s: %q", verb, got)
		}
	}
	for _, word := range []string{`" s"`, `" min"`, `" h"`, `" days"`, `" ago"`, `"in "`, `"expired "`, `"expires "`} {
		if !strings.Contains(script, word) {
			t.Errorf("the script does not say %s", word)
		}
	}
}

// TestEveryLifeCanBeDrawn: odd histories neither fail nor give numbers that no browser can draw.
func TestEveryLifeCanBeDrawn(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	kinds := []string{"registered", "decided", "published", "ended", "needs_consent", "disconnected", "revoked", "adopted",
		"rejected", "quarantined", "refused", "unheard_of", ""}
	for seed := range 3000 {
		var events []rotation.Event // newest first
		rec := rotation.Record{Status: rotation.Active}
		for i, n := 0, seed%40; i < n; i++ {
			x := seed*7919 + i*104729
			e := rotation.Event{At: now.Add(-time.Duration(i) * time.Duration(x%5000) * time.Second), Kind: kinds[x%len(kinds)],
				Generation: int64(n - i), Epoch: 1, Detail: []string{"refresh", "code", "", "its answer was lost"}[x%4]}
			if x%3 > 0 {
				e.ExpiresAt = e.At.Add(time.Duration(x%9000-1000) * time.Second)
			}
			events = append(events, e)
			inWords(e)
		}
		l := drawLife(rec, events, []rotation.Notice{{At: now}}, now)
		var numbers []float64
		for _, b := range l.Bars {
			numbers = append(numbers, b.X, b.Y, b.Width, b.Rest, b.Ahead, b.X+b.Width)
		}
		for _, g := range l.Gaps {
			numbers = append(numbers, g.X, g.Width)
		}
		for _, m := range l.Marks {
			numbers = append(numbers, m.X, m.Y)
		}
		for _, v := range numbers {
			if math.IsNaN(v) || v < 0 || v > lifeWidth {
				t.Fatalf("seed %d: %v in %+v", seed, v, l)
			}
		}
		if len(l.Bars) > maxBars || len(l.Ticks) > 12 {
			t.Fatalf("seed %d: %d bars, %d ticks", seed, len(l.Bars), len(l.Ticks))
		}
	}
}

// A clock that is an hour ahead for one rotation makes neither a gap nor the newest event.
func TestALifeWithAClockThatWasAhead(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	lifetime, step := 50*time.Second, 20*time.Second
	var events []rotation.Event
	for generation := range int64(5) {
		at := now.Add(-time.Duration(4-generation)*step - time.Second)
		if generation == 2 {
			at = at.Add(time.Hour)
		}
		events = append(events,
			rotation.Event{At: at, Kind: "decided", Epoch: 1, Generation: generation, Detail: "refresh",
				ExpiresAt: at.Add(lifetime)},
			rotation.Event{At: at, Kind: "published", Epoch: 1, Generation: generation})
	}
	newestFirst := func(a, b rotation.Event) int { return b.At.Compare(a.At) }
	slices.Reverse(events)
	slices.SortStableFunc(events, newestFirst) // as a ledger returns them
	l := drawLife(rotation.Record{Status: rotation.Active}, events, nil, now)
	if len(l.Bars) != 5 || l.Lapses != 0 {
		t.Errorf("%d bars, %d gaps: %+v", len(l.Bars), l.Lapses, l)
	}
	for i, b := range l.Bars {
		if want := fmt.Sprintf("Generation 1.%d: from 11:", i); !strings.HasPrefix(b.Title, want) ||
			b.Rest > 0 != (i < 4) || b.Ahead > 0 != (i == 4) {
			t.Errorf("bar %d: %+v", i, b)
		}
	}
	var order []string
	for _, w := range historyInWords(events, now) {
		order = append(order, w.Generation)
	}
	if got := strings.Join(order, " "); got != "1.4 1.4 1.3 1.3 1.2 1.2 1.1 1.1 1.0 1.0" {
		t.Errorf("the table has %s", got)
	}
}

// The script takes the number of the page that it loads as its own, so it has to take every part of it.
func TestTheScriptAdoptsEveryPart(t *testing.T) {
	_, list, _ := strings.Cut(script, `adopt(page, [`)
	list, _, _ = strings.Cut(list, "]")
	h := &Handler{cfg: Config{Experiments: noExperiments{}}}
	for _, p := range h.parts(snapshot{}) {
		if !strings.Contains(list, `"`+p.name+`"`) {
			t.Errorf("the script adopts %s, without %s", list, p.name)
		}
	}
}

type noExperiments struct{}

func (noExperiments) Experiments() []Experiment           { return nil }
func (noExperiments) Start(context.Context, string) error { return nil }
func (noExperiments) Changed() <-chan struct{}            { return nil }

func TestReadmeHasTheTextsOfTheSnippets(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	h := &Handler{cfg: Config{SecretPrefix: "tokenturn", Command: "tokenturn"}}
	inGo := h.readings(token.Connection{Environment: "production", Name: "acme"})[0].Code
	for _, line := range strings.Split(inGo, "\n") {
		if line = strings.TrimSpace(line); strings.Contains(line, "source") && !strings.Contains(string(readme), line) {
			t.Errorf("README.md reads the token in another way than %s", line)
		}
	}
}
