package procoretest

import (
	"time"
)

const codeLifetime = 10 * time.Minute

// code is an issued authorization code.
type code struct {
	client, redirectURI, challenge string
	user                           *User
	created                        time.Time
	used, revoked                  bool
}

// pair is an access token with its refresh token; they live and die together.
type pair struct {
	access, refresh string // refresh may be empty
	client          string
	user            *User
	family          int
	created         time.Time
	lifetime        time.Duration
	dead, spent     bool  // spent: dead because of its successor
	previous        *pair // dies at the first use of this one
}

func (p *pair) expiresAt() time.Time { return p.created.Add(p.lifetime) }

// The functions below must be called with h.mu held.

func (h *Handler) issue(client string, user *User, family int, withRefresh bool) *pair {
	p := &pair{access: random(), client: client, user: user, family: family, created: h.now().Truncate(time.Second),
		lifetime: h.lifetime}
	h.byAccess[p.access] = p
	if withRefresh {
		p.refresh = random()
		h.byRefresh[p.refresh] = p
	}
	h.pairs = append(h.pairs, p)
	return p
}

func (h *Handler) issueForConsent(client string, user *User) *pair {
	h.families++
	return h.issue(client, user, h.families, true)
}

// succeed issues the successor of old.
func (h *Handler) succeed(old *pair) *pair {
	next := h.issue(old.client, old.user, old.family, !h.is(NoNewRefreshToken))
	switch {
	case h.is(NoNewRefreshToken):
	case h.is(OldLivesUntilFirstUse):
		next.previous = old
	default:
		old.dead, old.spent = true, true
	}
	return next
}

// reused handles the presentation of a dead refresh token.
func (h *Handler) reused(p *pair) {
	if !h.is(ReuseKillsFamily) || !p.spent {
		return
	}
	for _, other := range h.pairs {
		if other.family == p.family {
			other.dead = true
		}
	}
}

// use finds the access token of a bearer request. The use ends the token's
// predecessor, even if the token itself has expired.
func (h *Handler) use(access string) (_ *pair, why string) {
	p := h.byAccess[access]
	if p == nil {
		return nil, "The access token is invalid"
	}
	if p.previous != nil {
		p.previous.dead, p.previous.spent = true, true
		p.previous = nil
	}
	switch {
	case p.dead:
		return nil, "The access token was revoked"
	case !h.now().Before(p.expiresAt()):
		return nil, "The access token expired"
	}
	return p, ""
}
