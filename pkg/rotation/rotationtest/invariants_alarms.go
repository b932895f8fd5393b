package rotationtest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// What must be reported: to people (I17), and in the history (I18).

// alarm is a kind of notice about a connection.
type alarm struct {
	connection token.Connection
	kind       string
}

// alarmsRaised is I17: people are notified of every loss, unknown result, quarantine,
// rejection and drift at least once, and of nothing that has not happened. A notice that a
// fault blocked counts as sent, except the notice of a loss, which must be sent again. If a
// process died before it could send a notice and another process must find what it left,
// the notice is still required.
func alarmsRaised(b *Harness) error {
	sent, due := map[alarm]int{}, map[alarm]int{}
	cause := map[alarm]bool{}
	status, pendingNotice := map[token.Connection]rotation.Status{}, map[token.Connection]bool{}
	attempts, epoch := map[token.Fingerprint]attemptOf{}, map[token.Connection]int64{}
	notified := map[string]time.Time{} // when a notice about the whole environment was sent
	entries := b.Journal.Entries()
	for i, e := range entries {
		demand := func(c token.Connection, kind string) {
			due[alarm{c, kind}]++
			cause[alarm{c, kind}] = true
		}
		switch effect := e.Effect.(type) {
		case Noticed:
			n := effect.Notice
			if title := n.Title(); !strings.Contains(title, n.Connection.String()) && !strings.Contains(title, n.Environment) {
				return violated("I17", e, "the title of a notice does not say what it is about: %s", title)
			}
			sent[alarm{effect.Notice.Connection, effect.Notice.Kind}]++
			if effect.Notice.Connection.IsZero() {
				notified[effect.Notice.Environment] = e.At
			}
		case Restored, Purged, Acted:
			cause[alarm{e.Connection, rotation.NoticeDrift}] = true
		case Moved:
			if effect.ByHand {
				cause[alarm{e.Connection, rotation.NoticeDrift}] = true
			}
		case Faulted:
			if effect.Fault.Kind == Stale && effect.At.Call == "secrets.Current" { // and again at the second read
				cause[alarm{e.Connection, rotation.NoticeDrift}] = true
			}
			if effect.At.Call == "notifier.Notify" && effect.Fault.Kind != Crash {
				for _, kind := range demandable {
					if kind != rotation.NoticeNeedsConsent {
						sent[alarm{e.Connection, kind}]++
					}
				}
			}
		case Wrote:
			r := effect.Change.Record
			for _, a := range r.Attempts() {
				attempts[a.Fingerprint] = attemptOf{e.Connection, a}
			}
			if status[e.Connection] == rotation.NeedsConsent && r.Status == rotation.Active && r.Epoch == epoch[e.Connection] &&
				!died(entries[i:], e.Actor) {
				demand(e.Connection, rotation.NoticeRecovered)
			}
			epoch[e.Connection] = r.Epoch
			if asks := r.Status == rotation.NeedsConsent; asks && !r.NoticePending && (status[e.Connection] != r.Status ||
				pendingNotice[e.Connection]) {
				if e.At.Sub(notified[e.Connection.Environment]) > incidentCovers {
					demand(e.Connection, rotation.NoticeNeedsConsent)
				}
				cause[alarm{e.Connection, rotation.NoticeNeedsConsent}] = true
			}
			status[e.Connection], pendingNotice[e.Connection] = r.Status, r.NoticePending
			for _, mark := range effect.Change.Mark[:min(1, len(effect.Change.Mark))] { // the others are of the same grant
				demand(e.Connection, map[rotation.ResponseState]string{
					rotation.Quarantined: rotation.NoticeQuarantined, rotation.Rejected: rotation.NoticeRejected}[mark.State])
			}
			if slices.ContainsFunc(effect.Change.History, func(h rotation.Event) bool { return h.Kind == "adopted" }) {
				demand(e.Connection, rotation.NoticeDrift)
			}
		case Answered:
			a, known := attempts[effect.What]
			if known && (effect.Class == rotation.UnknownResult || effect.Class == rotation.OddRefusal) {
				cause[alarm{a.connection, rotation.NoticeUnknown}] = true
				if a.Presentations == 1 && effect.Class == rotation.UnknownResult && !died(entries[i:], e.Actor) {
					demand(a.connection, rotation.NoticeUnknown)
				}
			}
			if known && effect.Class == rotation.Refused { // even if the write that says so was refused
				cause[alarm{a.connection, rotation.NoticeNeedsConsent}] = true
			}
		}
	}
	for c, waits := range pendingNotice {
		if waits {
			return fmt.Errorf("I17 is broken: %s needs a consent, and nobody was notified", c)
		}
	}
	for a, n := range due {
		if sent[a] < n {
			return fmt.Errorf("I17 is broken: of %s people were notified of %q %d times, and it happened %d times", a.connection,
				a.kind, sent[a], n)
		}
	}
	for _, n := range b.Notifier.Notices() {
		// the write that belongs to any other notice may have been refused
		visible := n.Kind == rotation.NoticeNeedsConsent || n.Kind == rotation.NoticeUnknown || n.Kind == rotation.NoticeDrift
		if a := (alarm{n.Connection, n.Kind}); visible && !n.Connection.IsZero() && !cause[a] {
			return fmt.Errorf("I17 is broken: of %s people were notified of %q, and it never happened", a.connection, a.kind)
		}
	}
	return nil
}

// incidentCovers is how long a notice about many connections of an environment also
// covers those that follow.
const incidentCovers = time.Hour

// demandable are the notices with a cause that the journal shows.
var demandable = []string{rotation.NoticeNeedsConsent, rotation.NoticeUnknown, rotation.NoticeQuarantined,
	rotation.NoticeRejected, rotation.NoticeDrift, rotation.NoticeRecovered}

type attemptOf struct {
	connection token.Connection
	rotation.Attempt
}

// died reports whether the actor crashes in these entries.
func died(entries []Entry, actor string) bool {
	return slices.ContainsFunc(entries, func(e Entry) bool {
		f, ok := e.Effect.(Faulted)
		return ok && e.Actor == actor && f.Fault.Kind == Crash
	})
}

// historyIsComplete is I18: each decision, ended attempt and change of status has exactly
// one row, which is written with it.
func historyIsComplete(b *Harness) error {
	before := map[token.Connection]rotation.Record{}
	for _, e := range b.Journal.Entries() {
		if restored, ok := e.Effect.(Restored); ok {
			before[e.Connection] = restored.Record
		}
		wrote, ok := e.Effect.(Wrote)
		if !ok {
			continue
		}
		was, is := before[e.Connection], wrote.Change.Record
		before[e.Connection] = is
		rows := wrote.Change.History
		count := func(kinds ...string) (n int) {
			for _, h := range rows {
				if slices.Contains(kinds, h.Kind) {
					n++
				}
			}
			return n
		}
		decided := is.Current != nil && (was.Current == nil || was.Current.Response != is.Current.Response)
		switch {
		case decided && count("decided", "adopted") != 1:
			return violated("I18", e, "a decision has %d rows in the history", count("decided", "adopted"))
		case !decided && count("decided", "adopted") != 0:
			return violated("I18", e, "the history has a decision that was not made")
		case was.Status != is.Status && count("registered", "decided", "adopted", "needs_consent", "disconnected") != 1:
			return violated("I18", e, "going from %q to %q has no row of its own in the history", was.Status, is.Status)
		}
		if a := was.Attempt; a != nil && (is.Attempt == nil || is.Attempt.ID != a.ID) &&
			!slices.ContainsFunc(rows, func(h rotation.Event) bool { return h.Attempt == a.ID }) {
			return violated("I18", e, "attempt %s ends without a row in the history", short(a.ID))
		}
		for _, h := range rows {
			if h.At.IsZero() || h.Kind == "" {
				return violated("I18", e, "a row of the history has no time or no kind")
			}
		}
	}
	return nil
}
