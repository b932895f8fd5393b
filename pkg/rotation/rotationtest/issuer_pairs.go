package rotationtest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The state of the issuer, and the rules by which it changes. Functions that are not
// exported require the lock.

type code struct {
	text        token.Secret
	owner       rotation.Identity
	redirectURI string
	challenge   string
	issued      time.Time
	family      int // of the pair given for it; 0: not used yet
}

type pair struct {
	access, refresh token.Secret
	parent          *pair // nil for the first of its family
	family          int
	owner           rotation.Identity
	issued, expires time.Time
	redeemed        time.Time // when its refresh token was first redeemed
	used            bool      // its access token
	ended           string    // why; empty: alive
	endedAt         time.Time
}

func (i *Issuer) redeem(ctx context.Context, app rotation.Application, grant rotation.Grant, n int) rotation.Answer {
	refused := rotation.Answer{Class: rotation.Refused, Detail: "invalid_grant"}
	if time.Now().Before(i.ShutUntil) {
		return rotation.Answer{Class: rotation.UnknownResult, Wait: i.Wait, Detail: "HTTP 503"}
	}
	if !i.knows(app) {
		return rotation.Answer{Class: rotation.ClientFault, Detail: "invalid_client"}
	}
	if i.FindsFault > 0 {
		i.FindsFault--
		return rotation.Answer{Class: rotation.RequestFault, Detail: "HTTP 400 invalid_request"}
	}
	if grant.RefreshToken.IsZero() {
		c := i.usableCode(ctx, grant)
		if c == nil {
			return refused
		}
		i.families++
		c.family = i.families
		return i.grant(ctx, n, c.text, &pair{owner: c.owner, family: c.family})
	}
	old := i.find(grant.RefreshToken)
	if old == nil || old.refresh != grant.RefreshToken {
		return refused
	}
	if !i.takes(old) {
		if i.Personality.KillFamily {
			i.endFamily(ctx, old.family, reused)
		}
		return refused
	}
	if i.Personality.RefusesOnce && !i.refused[old.family] {
		if i.refused == nil {
			i.refused = map[int]bool{}
		}
		i.refused[old.family] = true
		return refused
	}
	next := &pair{parent: old, owner: old.owner, family: old.family}
	if old.redeemed.IsZero() && !i.Personality.NoRotation {
		old.redeemed = time.Now()
	}
	if !i.Personality.Overlap && i.Personality.Grace == 0 && !i.Personality.NoRotation {
		i.end(ctx, old, "redeemed")
	}
	return i.grant(ctx, n, old.refresh, next)
}

// redeemForClient answers a request with client credentials. It spends nothing, so the
// journal does not record it.
func (i *Issuer) redeemForClient(ctx context.Context, app rotation.Application) rotation.Answer {
	answer, err := Through(ctx, i.Gate, "issuer.Redeem", token.Connection{}, func(bool) (rotation.Answer, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if !i.knows(app) {
			return rotation.Answer{Class: rotation.ClientFault, Detail: "invalid_client"}, nil
		}
		p := &pair{owner: rotation.Identity{ClientID: app.ClientID}}
		body := i.issue(p)
		i.remember(p, "")
		return rotation.Answer{Class: rotation.Captured, Body: token.NewSecret(string(encode(body))), Detail: "HTTP 200"}, nil
	})
	return i.received(answer, err)
}

func (i *Issuer) knows(app rotation.Application) bool {
	secret, found := i.clients[app.ClientID]
	return len(i.clients) == 0 || found && secret == app.ClientSecret
}

// usableCode returns the presented code if it may be exchanged, or nil.
func (i *Issuer) usableCode(ctx context.Context, grant rotation.Grant) *code {
	for _, c := range i.codes {
		switch {
		case c.text != grant.Code:
			continue
		case c.family != 0 && i.Personality.KillFamily:
			i.endFamily(ctx, c.family, reused)
			return nil
		case c.family != 0, time.Since(c.issued) > codeLife, c.redirectURI != grant.RedirectURI,
			c.challenge != "" && c.challenge != challengeOf(grant.Verifier):
			return nil
		}
		return c
	}
	return nil
}

// challengeOf is the S256 transformation of RFC 7636 section 4.2.
func challengeOf(verifier token.Secret) string {
	sum := sha256.Sum256([]byte(verifier.Reveal()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// grant issues next, in the form of Procore's answers.
func (i *Issuer) grant(ctx context.Context, n int, what token.Secret, next *pair) rotation.Answer {
	body := i.issue(next)
	granted := Granted{N: n, What: what.Fingerprint()}
	if next.parent == nil || !i.Personality.NoRotation {
		next.refresh = i.secret("refresh", len(i.pairs))
		body["refresh_token"] = next.refresh.Reveal()
		granted.Pair = next.refresh.Fingerprint()
	}
	i.remember(next, granted.Pair)
	i.Journal.Add(ctx, token.Connection{}, granted)
	return rotation.Answer{Class: rotation.Captured, Body: token.NewSecret(string(encode(body))), Detail: "HTTP 200"}
}

// issue gives the pair its access token and returns the body of the answer.
func (i *Issuer) issue(p *pair) (body map[string]any) {
	lifetime := i.Personality.Lifetime
	if lifetime == 0 {
		lifetime = 5400 * time.Second
	}
	p.issued, p.expires = time.Now(), time.Now().Add(lifetime)
	p.access = i.secret("access", len(i.pairs))
	return map[string]any{"access_token": p.access.Reveal(), "token_type": "Bearer",
		"expires_in": int(lifetime.Seconds()), "created_at": p.issued.Add(-i.Personality.Behind).Unix()}
}

// secret makes a token that looks random, is the same in every run, and has all the
// characters that encodings treat differently (RFC 6750's b64token).
func (i *Issuer) secret(kind string, n int) token.Secret {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n))
	return token.NewSecret(kind + "+/" + base64.StdEncoding.EncodeToString(sum[:]))
}

// use is one request with an access token. With Overlap, the first request ends the parent,
// even if it comes too late to be accepted.
func (i *Issuer) use(ctx context.Context, access token.Secret) *pair {
	p := i.find(access)
	if p == nil || p.access != access {
		return nil
	}
	if i.Personality.Overlap && !p.used && p.ended == "" && p.parent != nil {
		i.end(ctx, p.parent, "successor used")
	}
	p.used = true
	accepted := i.alive(p) && time.Now().Before(p.expires)
	i.Journal.Add(ctx, token.Connection{}, Used{p.refresh.Fingerprint(), accepted})
	if !accepted {
		return nil
	}
	return p
}

// Takes reports whether the refresh token or code of that fingerprint could be redeemed now.
func (i *Issuer) Takes(grant token.Fingerprint) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if p := i.byPrint[grant]; p != nil {
		return i.takes(p)
	}
	for _, c := range i.codes {
		if c.text.Fingerprint() == grant {
			return c.family == 0 && time.Since(c.issued) <= codeLife
		}
	}
	return false
}

// Lives returns from when until when the access token is accepted, as far as that is known
// now; zero times: the issuer did not give it.
func (i *Issuer) Lives(access token.Secret) (from, until time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.find(access)
	if p == nil || p.access != access {
		return time.Time{}, time.Time{}
	}
	until = p.expires
	if over := p.redeemed.Add(i.Personality.Grace); i.Personality.Grace > 0 && !p.redeemed.IsZero() && over.Before(until) {
		until = over
	}
	if p.ended != "" && p.endedAt.Before(until) {
		until = p.endedAt
	}
	return p.issued, until
}

// Family numbers the consent that the refresh token came from; 0: unknown.
func (i *Issuer) Family(refresh token.Fingerprint) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	if p := i.byPrint[refresh]; p != nil {
		return p.family
	}
	return 0
}

// Secrets returns every secret that the issuer knows. Readers may see the access tokens.
// Nobody may see the others.
func (i *Issuer) Secrets() (access, others []token.Secret) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, p := range i.pairs {
		access = append(access, p.access)
		if !p.refresh.IsZero() {
			others = append(others, p.refresh)
		}
	}
	for _, c := range i.codes {
		others = append(others, c.text)
	}
	for _, secret := range i.clients {
		others = append(others, secret)
	}
	return access, append(others, i.retired...)
}

func (i *Issuer) find(t token.Secret) *pair { return i.byToken[t] }

// remember indexes a new pair. print is empty if it has no refresh token.
func (i *Issuer) remember(p *pair, print token.Fingerprint) {
	if i.byToken == nil {
		i.byToken, i.byPrint = map[token.Secret]*pair{}, map[token.Fingerprint]*pair{}
	}
	i.pairs = append(i.pairs, p)
	i.byToken[p.access] = p
	if print != "" {
		i.byToken[p.refresh], i.byPrint[print] = p, p
	}
}

// alive reports whether the pair has not ended. Its grace period may also have ended it.
func (i *Issuer) alive(p *pair) bool {
	grace := i.Personality.Grace
	return p.ended == "" && (grace == 0 || p.redeemed.IsZero() || time.Since(p.redeemed) <= grace)
}

// takes reports whether the pair's refresh token can be redeemed.
func (i *Issuer) takes(p *pair) bool { return i.alive(p) && !p.refresh.IsZero() }

func (i *Issuer) end(ctx context.Context, p *pair, why string) {
	if p.ended == "" {
		p.ended, p.endedAt = why, time.Now()
		i.Journal.Add(ctx, token.Connection{}, Ended{p.refresh.Fingerprint(), why})
	}
}

func (i *Issuer) endFamily(ctx context.Context, family int, why string) {
	for _, p := range i.pairs {
		if p.family == family {
			i.end(ctx, p, why)
		}
	}
}
