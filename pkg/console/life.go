package console

import (
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// life is the picture of a connection's life as those see it who read its token: a bar for the
// access token of each generation,
// and a mark for each event. The template "life" draws it. All numbers are in the units of
// its view box.
type life struct {
	Empty  bool
	Title  string
	Bars   []bar
	Gaps   []span
	Marks  []mark
	Ticks  []tick
	NowX   float64
	Kinds  []kind // the legend: those that occur
	Lapses int    // gaps, in words for those who do not see the picture
}

// bar is the life of one access token.
type bar struct {
	X, Y, Width float64 // while it is the current one
	Rest        float64 // width after it was replaced, until it expires: the overlap
	Ahead       float64 // width of the future, of the current token
	AheadX      float64
	Label       string // if there is room
	Title       string
}

type span struct {
	X, Width float64
	Title    string
}

type mark struct {
	X, Y  float64
	Kind  string
	Title string
}

type tick struct {
	X     float64
	At    time.Time
	Label string
}

// kind is a kind of mark: a symbol of the template, and its name in the legend.
type kind struct{ Symbol, Name string }

// kinds are all kinds, in the order of the legend.
var kinds = []kind{{"consent", "consent"}, {"redeem", "redeem"}, {"recovery", "recovery"}, {"publish", "publish"},
	{"unknown", "unknown or failed"}, {"refused", "refused or quarantined"}, {"ended", "disconnected or revoked"},
	{"notice", "notice"}, {"gap", "gap: no valid token"}, {"rest", "overlap: replaced, not expired"}}

// The geometry.
const (
	lifeWidth = 1000.0
	lifeLeft  = 8.0
	lifeRight = lifeWidth - 8
	// maxBars is how many generations are drawn, the newest ones
	maxBars = 14
	barsY   = 66.0
	laneY   = 26.0 // from one lane of bars to the next
)

// rows of marks, from top
var markY = map[string]float64{"consent": 16, "redeem": 16, "recovery": 16, "publish": 50, "unknown": 33, "refused": 33,
	"ended": 33, "notice": 33}

// pair is one access token.
type pair struct {
	from, until  time.Time // until: it expires; zero: not known
	replaced     time.Time // zero: it is the current one
	generation   int64
	epoch        int64
	disconnected bool
}

// drawLife draws the events, which are newest first.
func drawLife(rec rotation.Record, newestFirst []rotation.Event, notices []rotation.Notice, now time.Time) life {
	events := oldestFirst(newestFirst, now)
	latest := now // a time after it is of a clock that was ahead
	for i := len(events) - 1; i >= 0; i-- {
		e := &events[i]
		if ahead := e.At.Sub(latest); ahead > 0 {
			e.At = latest
			if !e.ExpiresAt.IsZero() {
				e.ExpiresAt = e.ExpiresAt.Add(-ahead)
			}
		}
		latest = e.At
	}
	pairs := pairsOf(rec, events)
	if len(events) == 0 {
		return life{Empty: true}
	}
	pairs = pairs[max(0, len(pairs)-maxBars):]
	start := events[0].At
	for _, e := range events { // a connection may have waited for long before its first mark
		if symbolOf(e, false) != "" {
			start = e.At
			break
		}
	}
	if len(pairs) == maxBars {
		start = pairs[0].from
	}
	start = start.Add(-now.Sub(start) / 60)
	if earliest := now.Add(-time.Minute); start.After(earliest) {
		start = earliest
	}
	end := now.Add(now.Sub(start) / 20)
	if len(pairs) > 0 { // show when the current token expires, if that is not too far away
		last := pairs[len(pairs)-1]
		if limit := now.Add(max(now.Sub(start)/2, time.Minute)); last.until.After(end) {
			end = last.until
			if end.After(limit) {
				end = limit
			}
		}
	}
	l := life{}
	x := func(t time.Time) float64 {
		share := float64(t.Sub(start)) / float64(end.Sub(start))
		return lifeLeft + min(max(share, 0), 1)*(lifeRight-lifeLeft)
	}
	used := map[string]bool{}
	for i, p := range pairs {
		l.Bars = append(l.Bars, drawBar(p, barsY+laneY*float64(i%2), x, now))
		if p.until.IsZero() {
			continue
		}
		if l.Bars[len(l.Bars)-1].Rest > 0 {
			used["rest"] = true
		}
		over := now // without a token until
		if i+1 < len(pairs) {
			over = pairs[i+1].from
		} else if !p.replaced.IsZero() {
			continue // disconnected: nothing is missing
		}
		if p.until.Before(over) && (p.replaced.IsZero() || !p.disconnected) {
			l.Gaps = append(l.Gaps, span{x(p.until), x(over) - x(p.until), fmt.Sprintf("Gap: no valid access token for %s",
				duration(over.Sub(p.until)))})
			used["gap"] = true
		}
	}
	l.Lapses = len(l.Gaps)
	troubled := false // since the last pair: what follows is a recovery
	for _, e := range events {
		symbol := symbolOf(e, troubled)
		troubled = troubledBy(e, troubled)
		if symbol == "" || e.At.Before(start) {
			continue
		}
		used[symbol] = true
		w := inWords(e)
		l.Marks = append(l.Marks, mark{x(e.At), markY[symbol], symbol, markTitle(w.Text, e.At)})
	}
	for _, n := range notices {
		if n.At.Before(start) {
			continue
		}
		used["notice"] = true
		l.Marks = append(l.Marks, mark{x(n.At), markY["notice"], "notice", markTitle("Notice: "+n.Summary, n.At)})
	}
	for _, k := range kinds {
		if used[k.Symbol] {
			l.Kinds = append(l.Kinds, k)
		}
	}
	l.NowX = x(now)
	l.Ticks = ticks(start, end, x)
	l.Title = fmt.Sprintf("%s from %s to %s", count(len(l.Bars), "access token", "access tokens"),
		start.UTC().Format("2006-01-02 15:04"), end.UTC().Format("2006-01-02 15:04 UTC"))
	return l
}

func markTitle(text string, at time.Time) string {
	return at.UTC().Format("15:04:05") + " UTC: " + text
}

// pairsOf are the access tokens that programs got, oldest first, by the events and the record.
// A pair begins when it is published: until then, programs have the one before it.
func pairsOf(rec rotation.Record, events []rotation.Event) (pairs []pair) {
	type key struct{ epoch, generation int64 }
	expires := map[key]time.Time{}
	if cur := rec.Current; cur != nil {
		expires[key{cur.Response.Epoch, cur.Response.Generation}] = cur.ExpiresAt
	}
	replace := func(at time.Time, disconnected bool) {
		if last := len(pairs) - 1; last >= 0 && pairs[last].replaced.IsZero() {
			pairs[last].replaced, pairs[last].disconnected = at, disconnected
		}
	}
	for _, e := range events {
		k := key{e.Epoch, e.Generation}
		if isPair(e) && !e.ExpiresAt.IsZero() {
			expires[k] = e.ExpiresAt
		}
		switch e.Kind {
		case "adopted", "published": // what is adopted is what the secret store shows
			if last := len(pairs) - 1; last >= 0 && pairs[last].epoch == k.epoch && pairs[last].generation == k.generation {
				continue // published again
			}
			replace(e.At, false)
			pairs = append(pairs, pair{from: e.At, until: expires[k], generation: e.Generation, epoch: e.Epoch})
		case "disconnected":
			replace(e.At, true)
		}
	}
	return pairs
}

func drawBar(p pair, y float64, x func(time.Time) float64, now time.Time) bar {
	b := bar{X: x(p.from), Y: y}
	b.Title = fmt.Sprintf("Generation %s: from %s", generation(p.epoch, p.generation), p.from.UTC().Format("15:04:05"))
	until := p.until
	if until.IsZero() || until.Before(p.from) { // from before expiries were kept, or an import without an access token
		until = p.from
		if p.replaced.After(until) {
			until = p.replaced
		}
	} else {
		b.Title += " to " + until.UTC().Format("15:04:05") + " UTC"
	}
	solid := until
	if !p.replaced.IsZero() && p.replaced.Before(until) {
		solid = p.replaced
		if !p.disconnected { // then it was revoked
			b.Rest = x(until) - x(solid)
			b.Title += ", replaced at " + solid.UTC().Format("15:04:05")
		}
	}
	if p.replaced.IsZero() && until.After(now) {
		solid = now
		b.AheadX, b.Ahead = x(now), x(until)-x(now)
	}
	b.Width = max(x(solid)-b.X, 2)
	if label := generation(p.epoch, p.generation); b.Width > 100 {
		b.Label = "generation " + label
	} else if b.Width > 10*float64(len(label)) {
		b.Label = label
	}
	return b
}

// symbolOf is the kind of mark for an event; empty: none.
func symbolOf(e rotation.Event, troubled bool) string {
	switch e.Kind {
	case "decided":
		switch {
		case rotation.Source(e.Detail) == rotation.FromCode || rotation.Source(e.Detail) == rotation.FromImport:
			return "consent"
		case troubled:
			return "recovery"
		}
		return "redeem"
	case "adopted":
		return "recovery"
	case "published":
		return "publish"
	case "ended":
		return "unknown"
	case "needs_consent", "refused", "quarantined", "rejected":
		return "refused"
	case "disconnected", "revoked":
		return "ended"
	}
	return ""
}

// ticks are about six round times.
func ticks(start, end time.Time, x func(time.Time) float64) (all []tick) {
	step := 5 * time.Second
	for _, next := range []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute,
		10 * time.Minute,
		30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour,
		30 * 24 * time.Hour} {
		if end.Sub(start)/step <= 7 {
			break
		}
		step = next
	}
	form := "15:04:05"
	switch {
	case step >= 24*time.Hour:
		form = "Jan 2"
	case end.Sub(start) > 20*time.Hour:
		form = "Jan 2 15:04"
	case step >= time.Minute:
		form = "15:04"
	}
	for t := start.Truncate(step).Add(step); t.Before(end) && len(all) < 12; t = t.Add(step) {
		if at := x(t); at > 30 && at < lifeWidth-60 {
			all = append(all, tick{at, t, t.UTC().Format(form)})
		}
	}
	return all
}
