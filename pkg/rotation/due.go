package rotation

import (
	"hash/fnv"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	// putInterval is the shortest sustained time between two versions of one
	// secret, 99 in a day: AWS keeps about 100 and drops none younger than 24
	// hours (Secrets Manager quotas).
	putInterval = 873 * time.Second
	daily       = 24 * time.Hour
)

// margin is the life an access token should have left when it is replaced: as
// much as 99 replacements a day allow, one each 875 s, but some seconds for doing it.
func margin(lifetime time.Duration) time.Duration {
	allowed := lifetime - 875*time.Second
	if allowed < 5*time.Second { // the day has more of these than the secret store takes, come what may
		allowed = 25 * time.Second
	}
	return min(10*time.Minute, allowed, lifetime/2)
}

// redeemAt is when the current pair is due: late enough that each rotation is
// worth one, early enough that the sweep after that still leaves the margin. An
// imported pair has no access token yet and is due at once.
func (s Settings) redeemAt(c token.Connection, cur Current) time.Time {
	if cur.VersionID == "" {
		return cur.SavedAt
	}
	lifetime := cur.ExpiresAt.Sub(cur.SavedAt)
	if lifetime <= 0 { // not told; nothing says when it ends
		return cur.SavedAt.Add(putInterval)
	}
	earliest := cur.SavedAt.Add(min(putInterval, lifetime-margin(lifetime)))
	latest := cur.ExpiresAt.Add(-s.Cadence - margin(lifetime))
	if !latest.After(earliest) {
		return earliest
	}
	// Spread over the last tenth of the room, so that connections which were
	// connected together do not stay together.
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.String()))
	room := latest.Sub(earliest) / 10
	return latest.Add(-time.Duration(h.Sum32()%1000) * room / 1000)
}

// ensureAt is when a follow-up must replace the current pair because waiting
// for the sweep after it is due would leave less than the margin; zero: the
// sweeps suffice, or the secret store cannot take versions that fast.
func (s Settings) ensureAt(c token.Connection, cur Current) time.Time {
	lifetime := cur.ExpiresAt.Sub(cur.SavedAt)
	at := cur.ExpiresAt.Add(-margin(lifetime))
	switch {
	case cur.VersionID == "" || lifetime <= 0:
		return time.Time{}
	case s.PutsPerDay > 0 && at.Sub(cur.SavedAt) < putInterval:
		return time.Time{}
	case s.redeemAt(c, cur).Add(s.Cadence).After(at):
		return at
	}
	return time.Time{}
}

// roomFor reports whether the secret store takes a version of rec now and still each
// that the schedule brings from then on. Who asks for more life than is left could
// else use up in an hour what the day needs. Where tokens live too short to be
// kept alive around the clock anyway, first come, first served.
func (s Settings) roomFor(rec Record, now time.Time) bool {
	first, every := s.rhythm(rec.Connection, *rec.Current)
	if s.PutsPerDay == 0 || every < putInterval {
		return true
	}
	puts := recentPuts(rec, now)
	for i, at := range puts {
		ahead := s.PutsPerDay - len(puts) + i // versions before the one that needs the place of this one
		needed := now
		if ahead > 0 {
			needed = now.Add(first + time.Duration(ahead-1)*every)
		}
		if time.Unix(at, 0).Add(daily).After(needed) {
			return false
		}
	}
	return true
}

// rhythm is how long after a pair like cur its successor comes at the earliest,
// and how far apart the following ones are: by follow-ups, or at every so manieth sweep.
func (s Settings) rhythm(c token.Connection, cur Current) (first, every time.Duration) {
	first = s.redeemAt(c, cur).Sub(cur.SavedAt)
	if at := s.ensureAt(c, cur); !at.IsZero() {
		return first, at.Sub(cur.SavedAt)
	}
	return first, (first + s.Cadence - 1) / s.Cadence * s.Cadence
}

// recentPuts are those that still count against the secret store's limit.
func recentPuts(rec Record, now time.Time) []int64 {
	since := now.Add(-daily).Unix()
	return slices.DeleteFunc(slices.Clone(rec.Puts), func(at int64) bool { return at <= since })
}

// dueAt is when the loop next has something to do for rec; zero: never. Every
// write of a record sets it by this rule. rec.DueAt may hold a time that a
// step wants to be looked at; it is kept where the rule has no time of its own.
func (s Settings) dueAt(rec Record, responses []TokenResponse, now time.Time) time.Time {
	due := s.ownDue(rec, responses, now)
	earlier := func(t time.Time) {
		if due.IsZero() || t.Before(due) {
			due = t
		}
	}
	if m := decidable(rec, responses); m != nil && !rec.resting(Decide, m.Key, now) {
		earlier(now)
	}
	for _, m := range responses {
		if orphan(rec, m) && !rec.resting(Revoke, m.Key, now) {
			earlier(now)
		}
	}
	if !rec.Residue.IsZero() {
		earlier(rec.Residue)
	}
	if f := rec.Failure; f != nil && f.NextAt.After(now) {
		if f.besides(rec) {
			earlier(f.NextAt)
		} else {
			due = f.NextAt
		}
	}
	if rec.Expected.After(now) {
		earlier(rec.Expected)
	}
	return due
}

func (s Settings) ownDue(rec Record, responses []TokenResponse, now time.Time) time.Time {
	switch rec.Status {
	case Active:
		switch {
		case held(rec, responses):
			return laterOrDaily(rec.DueAt, now)
		case rec.ServiceAccount && rec.Attempt != nil && now.Before(rec.Attempt.Until):
			return rec.Attempt.Until
		case rec.Attempt != nil && !rec.ServiceAccount:
			return rec.Attempt.Until.Add(s.Quiet)
		case rec.unpublished():
			return now
		default:
			return s.redeemAt(rec.Connection, *rec.Current)
		}
	case NeedsConsent:
		if rec.Untold && !rec.DueAt.After(now) {
			return now // for a sweep, which tells
		}
		return laterOrDaily(rec.DueAt, now)
	}
	return time.Time{}
}

// laterOrDaily: what waits for a person is read again after the quiet period
// (which the step that began the waiting has set) and then once a day.
func laterOrDaily(due, now time.Time) time.Time {
	if due.After(now) {
		return due
	}
	return now.Add(daily)
}
