package rotationtest

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// When a refresh token may be presented (I1, I2), and which successors of it were saved.

// presentation is what a refresh token's last presentation has come to.
type presentation struct {
	n        int
	attempt  rotation.Attempt
	answered bool
	class    rotation.Class
	dead     bool
	hindered bool // a fault struck the presenter after the answer, so it may not have been able to act on it
}

// presentedOnce is I1: a refresh token is presented only under an attempt, and
// never twice at a time; and I2: again only after an answer that spends
// nothing, or when an unknown end is old enough and no successor is saved.
func presentedOnce(b *Harness) error {
	attempts := map[token.Fingerprint]rotation.Attempt{}
	last := map[token.Fingerprint]*presentation{}
	by := map[string]*presentation{} // the last one of an actor
	saved := successors{}
	for _, e := range b.Journal.Entries() {
		saved.note(e)
		switch effect := e.Effect.(type) {
		case Wrote:
			if a := effect.Change.Record.Attempt; a != nil {
				attempts[a.Fingerprint] = *a
			}
		case Presented:
			if effect.Code {
				continue
			}
			attempt, begun := attempts[effect.What]
			switch before := last[effect.What]; {
			case !begun:
				return violated("I1", e, "%s is presented without an attempt", short(effect.What))
			case e.At.After(attempt.Until):
				return violated("I1", e, "%s is presented after its attempt ran out at %s", short(effect.What), clock(attempt.Until))
			case before != nil:
				if why := before.forbids(e.At, b.Settings.Quiet, saved.of(effect.What)); why != "" {
					return violated("I2", e, "%s is presented again (#%d after #%d) %s", short(effect.What), effect.N, before.n, why)
				}
			}
			last[effect.What] = &presentation{n: effect.N, attempt: attempt}
			by[e.Actor] = last[effect.What]
		case Faulted:
			if p := by[e.Actor]; p != nil && p.answered {
				p.hindered = true
			}
		case Answered:
			if p := last[effect.What]; p != nil && p.n == effect.N {
				p.answered, p.class, p.dead = true, effect.Class, effect.Dead
			}
		}
	}
	return nil
}

// spendsNothing are the classes after which a token is as good as before.
var spendsNothing = []rotation.Class{rotation.RateLimited, rotation.ClientFault, rotation.GrantFault, rotation.RequestFault, rotation.NotSent}

// forbids says why the token must not be presented again now; empty: it may be.
func (p *presentation) forbids(now time.Time, quiet time.Duration, successors int) string {
	switch {
	case p.answered && slices.Contains(spendsNothing, p.class):
		return ""
	case p.answered && p.class == rotation.Refused && p.dead && !p.hindered:
		return "after it was refused for good"
	case p.answered && p.class == rotation.Refused && !p.dead:
		return ""
	case successors > 0:
		return "although a successor is saved"
	case now.Before(p.attempt.Until.Add(quiet)):
		return "before the quiet period's end at " + clock(p.attempt.Until.Add(quiet))
	}
	return ""
}

// successors are the responses that were saved somewhere, by parent.
type successors map[token.Fingerprint]map[rotation.ResponseKey]*kept

// kept is a response that was saved. Once it was rejected, copies of it count as
// little; once the secret is purged, what only the secret store had does not count.
type kept struct {
	response           rotation.TokenResponse
	rejected, inLedger bool
}

// note takes in what an entry says of responses.
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
