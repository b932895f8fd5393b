package rotationtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// When a refresh token may be presented (I1, I2), and which of its successors were saved.

// presentation is the result of the last presentation of a refresh token.
type presentation struct {
	n        int
	attempt  rotation.Attempt
	answered bool
	class    rotation.Class
	hindered bool // the presenter met a fault after the answer, so it may not have been able to act on it
	recorded bool // the row says that the token was refused
}

// refusals is the state of a refresh token that the issuer has refused.
type refusals struct {
	asked   time.Time // when it was first written that the connection needs a consent
	retries int       // of the schedule since
}

// retries are the times after needs_consent was written at which the schedule
// presents a refused token once more. A person may ask for that at any time.
var retries = []time.Duration{15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour}

// clocksDiffer is how much earlier a process may come if its clock is ahead.
const clocksDiffer = 2 * time.Minute

// presentedOnce is I1 and I2. I1: a refresh token is presented only under an attempt, soon
// enough to end within it, and never twice at a time. I2: it is presented again only after
// an answer that spends nothing, after the quiet period of an unknown result, or as a retry
// of a connection that needs a consent; and never while a successor is saved.
func presentedOnce(b *Harness) error {
	attempts, begun := map[token.Fingerprint]rotation.Attempt{}, map[string]time.Time{} // by the time of the world
	last := map[token.Fingerprint]*presentation{}
	refused := map[token.Fingerprint]*refusals{}
	by := map[string]*presentation{} // the last one of an actor
	saved := successors{}
	for _, e := range b.Journal.Entries() {
		saved.note(e)
		switch effect := e.Effect.(type) {
		case Wrote:
			r := effect.Change.Record
			for _, a := range r.Attempts() {
				attempts[a.Fingerprint] = a
				if _, known := begun[a.ID]; !known {
					begun[a.ID] = e.At
				}
			}
			if r.Status == rotation.NeedsConsent && r.Current != nil {
				token := r.Current.Fingerprint
				if refused[token] == nil {
					refused[token] = &refusals{asked: e.At}
				}
				if p := last[token]; p != nil && p.answered && r.Attempt == nil {
					p.recorded = true
				}
			}
		case Presented:
			if effect.Code {
				continue
			}
			attempt, tied := attempts[effect.What]
			now := e.At.Add(e.Skew)
			switch before := last[effect.What]; {
			case !tied:
				return violated("I1", e, "%s is presented without an attempt", short(effect.What))
			case now.After(attempt.Until):
				return violated("I1", e, "%s is presented after its attempt ran out at %s", short(effect.What),
					clock(attempt.Until))
			case now.Add(b.Settings.RedeemTimeout).After(attempt.Until):
				return violated("I1", e, "%s is presented, and the request may end after its attempt at %s", short(effect.What),
					clock(attempt.Until))
			case before != nil:
				why := before.forbids(e.At, b.Settings.Quiet, saved.of(effect.What))
				if why == "" && before.refused() {
					why = refused[effect.What].forbid(latest(e.At, now), effect.Scheduled) // by either clock
				}
				if why != "" {
					return violated("I2", e, "%s is presented again (#%d after #%d) %s", short(effect.What), effect.N, before.n, why)
				}
			}
			// The clock of the presenter may be ahead. Its POST ends a lease after Begin.
			attempt.Until = earlier(attempt.Until, begun[attempt.ID].Add(b.Settings.Lease))
			last[effect.What] = &presentation{n: effect.N, attempt: attempt}
			by[e.Actor] = last[effect.What]
		case Faulted: // an actor that is canceled may end at once
			if p := by[e.Actor]; p != nil && (p.answered || effect.Fault.Kind == Cancel) {
				p.hindered = true
			}
		case Answered:
			if p := last[effect.What]; p != nil && p.n == effect.N {
				p.answered, p.class = true, effect.Class
			}
		}
	}
	return nil
}

// spendsNothing are the classes after which a token still works.
var spendsNothing = []rotation.Class{rotation.RateLimited, rotation.ClientFault, rotation.GrantFault,
	rotation.RequestFault, rotation.NotSent}

// forbids returns why the token must not be presented again now; empty: it may be, unless
// it was refused.
func (p *presentation) forbids(now time.Time, quiet time.Duration, successors int) string {
	switch {
	case successors > 0:
		return "although a successor is saved"
	case p.answered && slices.Contains(spendsNothing, p.class), p.refused():
		return ""
	case now.Before(p.attempt.Until.Add(quiet)):
		return "before the quiet period's end at " + clock(p.attempt.Until.Add(quiet))
	}
	return ""
}

// refused reports whether it is known that the issuer has refused the token: to the
// presenter, or from the row.
func (p *presentation) refused() bool {
	return p.answered && p.class == rotation.Refused && (p.recorded || !p.hindered)
}

// forbid returns why a refused token must not be presented again now, and counts the retry.
func (r *refusals) forbid(now time.Time, scheduled bool) string {
	switch {
	case r == nil:
		return "after it was refused, and it is not written that a consent is needed"
	case !scheduled:
		return ""
	case r.retries == len(retries):
		return fmt.Sprintf("after it was refused and tried %d times again", r.retries)
	}
	due := r.asked.Add(retries[r.retries])
	if now.Before(due.Add(-clocksDiffer)) {
		return "after it was refused, before the time of its next retry at " + clock(due)
	}
	r.retries++
	return ""
}

// timeToSave is how much time a run needs after a request to save its answer.
const timeToSave = 10 * time.Second

// answersCanBeSaved is I7 before the answer: no run presents a single-use credential if it
// could end before the answer is saved.
func answersCanBeSaved(b *Harness) error {
	for _, e := range b.Journal.Entries() {
		p, ok := e.Effect.(Presented)
		if !ok || p.Run == nil {
			continue
		}
		if left := p.Run.Ends.Sub(e.At); left < b.Settings.RedeemTimeout+timeToSave {
			return violated("I7", e, "#%d is presented, and the run ends in %v", p.N, left)
		}
	}
	return nil
}

// appsAreLeftAlone is the part of I14 for an app with refused requests, for any of its
// connections: one run presents nothing more after two refusals of the credentials, which it
// reads again between them, or after three refusals of a request.
func appsAreLeftAlone(b *Harness) error {
	type inRun struct {
		*Run
		environment string
	}
	under := map[int]inRun{}
	clients, requests := map[inRun]int{}, map[inRun]int{}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case Presented:
			run := inRun{effect.Run, effect.Environment}
			if effect.Run == nil || !effect.Scheduled { // it may be several
				continue
			}
			if clients[run] >= 2 || requests[run] >= 3 {
				return violated("I14", e, "#%d is presented after %d refusals of the app of %s and %d of its requests", effect.N,
					clients[run], effect.Environment, requests[run])
			}
			under[effect.N] = run
		case Answered:
			if run, known := under[effect.N]; known {
				switch effect.Class {
				case rotation.ClientFault:
					clients[run]++
				case rotation.RequestFault:
					requests[run]++
				}
			}
		}
	}
	return nil
}

// callersDoNotMatter is I7: an answer is not lost because its caller is canceled, neither on
// its way nor when it is saved.
func callersDoNotMatter(b *Harness) error {
	posting, asked, hindered := map[string]bool{}, map[string]bool{}, map[string]bool{} // actors
	granted := map[int]bool{}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case Faulted:
			cancelled := effect.Fault.Kind == Cancel
			posting[e.Actor] = cancelled && effect.At.Call == "issuer.Redeem"
			asked[e.Actor] = asked[e.Actor] || cancelled
			hindered[e.Actor] = hindered[e.Actor] || !cancelled
		case Granted:
			granted[effect.N] = true
		case Answered:
			if posting[e.Actor] && granted[effect.N] && effect.Class == rotation.UnknownResult {
				return violated("I7", e, "the request #%d ended with its caller", effect.N)
			}
		case Noticed:
			if effect.Notice.Kind == rotation.NoticeUnsaved && asked[e.Actor] && !hindered[e.Actor] {
				return violated("I7", e, "an answer for %s is given up because the run was canceled", e.Connection)
			}
		}
	}
	return nil
}

// successors are the responses that were saved in any store, by parent.
type successors map[token.Fingerprint]map[rotation.ResponseKey]*kept

// kept is a response that was saved. Once it is rejected, copies of it do not count either.
// Once the secret is purged, a response that only the secret store had does not count.
type kept struct {
	response           rotation.TokenResponse
	rejected, inLedger bool
}

// note records what an entry says about responses.
func (s successors) note(e Entry) {
	switch effect := e.Effect.(type) {
	case Responded:
		s.add(effect.TokenResponse).inLedger = true
	case Stored:
		if m, ok := escrowed(effect.Version); ok {
			s.add(m)
		}
	case Wrote:
		for _, mark := range effect.Change.Mark {
			for _, responses := range s {
				if m, found := responses[mark.Key]; found && mark.State == rotation.Rejected {
					m.rejected = true
				}
			}
		}
	case Purged:
		for _, responses := range s {
			maps.DeleteFunc(responses, func(_ rotation.ResponseKey, m *kept) bool {
				return m.response.Connection == e.Connection && !m.inLedger
			})
		}
	}
}

// forget removes all responses of a connection.
func (s successors) forget(c token.Connection) {
	for _, responses := range s {
		maps.DeleteFunc(responses, func(_ rotation.ResponseKey, m *kept) bool { return m.response.Connection == c })
	}
}

func (s successors) add(m rotation.TokenResponse) *kept {
	if s[m.Parent] == nil {
		s[m.Parent] = map[rotation.ResponseKey]*kept{}
	}
	if s[m.Parent][m.Key] == nil {
		s[m.Parent][m.Key] = &kept{response: m, rejected: m.State == rotation.Rejected}
	}
	return s[m.Parent][m.Key]
}

// of counts the successors that can be used.
func (s successors) of(parent token.Fingerprint) (n int) {
	for _, m := range s[parent] {
		if !m.rejected {
			n++
		}
	}
	return n
}

// escrowed reads a response that was saved in the secret store.
func escrowed(v rotation.Version) (rotation.TokenResponse, bool) {
	var escrow struct {
		TokenResponse rotation.TokenResponse `json:"mint"`
	}
	if !strings.HasPrefix(v.ID, "escrow-") || json.Unmarshal([]byte(v.Value.Reveal()), &escrow) != nil {
		return rotation.TokenResponse{}, false
	}
	return escrow.TokenResponse, true
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
