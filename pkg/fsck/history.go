package fsck

import (
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	// wholeHistory is more events than a connection has while they are kept.
	wholeHistory = 100_000
	// historyKept is less than the 90 days for which events are kept.
	historyKept = 80 * day
)

// history checks the events.
func (x *examination) history() {
	var last rotation.Event
	decided, spent := false, false
	cur := x.rec.Current
	for _, e := range slices.Backward(x.events) {
		if e.At.After(x.now.Add(clockTolerance)) {
			x.found(HistoryAhead, "the history has an event at %s, which is in the future", stamp(e.At))
		}
		if e.Kind != "decided" && e.Kind != "adopted" {
			continue
		}
		if cur != nil {
			decided = decided || e.Epoch == cur.Response.Epoch && e.Generation == cur.Response.Generation
			spent = spent || e.Spent != "" && e.Spent == cur.Fingerprint
		}
		x.sequence(last, e)
		last = e
	}
	if cur == nil || !x.live() {
		return
	}
	if !decided && cur.SavedAt.After(x.now.Add(-historyKept)) {
		x.found(DecisionWithoutHistory, "the history does not say that %d.%d was decided", cur.Response.Epoch,
			cur.Response.Generation)
	}
	if (spent || slices.Contains(x.rec.Spent, cur.Fingerprint)) && !x.keepsToken(cur.Fingerprint) {
		x.found(CurrentSpent, "the current refresh token is recorded as spent")
	}
}

// sequence checks that a decision follows the previous one. Two processes, each with its
// own clock, may have written them.
func (x *examination) sequence(last, e rotation.Event) {
	same := last.Epoch == e.Epoch && last.Generation == e.Generation
	switch {
	case last.At.IsZero():
	case same:
		x.found(DecidedTwice, "%d.%d was decided at %s and at %s", e.Epoch, e.Generation, stamp(last.At), stamp(e.At))
	case !above(e.Epoch, e.Generation, last.Epoch, last.Generation) && e.At.Sub(last.At) > clockTolerance:
		x.found(HistoryOutOfOrder, "%d.%d was decided at %s, and %d.%d after it at %s",
			last.Epoch, last.Generation, stamp(last.At), e.Epoch, e.Generation, stamp(e.At))
	}
}

// keepsToken reports whether the server returned the presented refresh token unchanged.
func (x *examination) keepsToken(fingerprint token.Fingerprint) bool {
	m, there := x.response(x.rec.Current.Response)
	return there && m.Parent == fingerprint
}

// endOf returns the time from which a response could no longer be decided; zero if the
// history does not say.
func (x *examination) endOf(m rotation.TokenResponse) time.Time {
	for _, e := range slices.Backward(x.events) {
		switch {
		case e.Kind == "rejected" && e.Attempt == m.Key.Attempt:
			return e.At
		case e.Kind != "decided" && e.Kind != "adopted" && e.Kind != "disconnected":
		case e.Attempt != m.Key.Attempt && !above(m.Key.Epoch, m.Key.Generation, e.Epoch, e.Generation):
			return e.At
		}
	}
	return time.Time{}
}
