package rotationtest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var _ rotation.Issuer = (*Issuer)(nil)

// Personality is how an authorization server treats the old pair when it gives a new one.
// The zero value ends it at once (Doorkeeper without its column previous_refresh_token).
type Personality struct {
	// Overlap keeps the old pair alive until the new access token is first
	// used (Doorkeeper with that column). Each redeem in between gives a sibling.
	Overlap bool
	// Grace keeps the old pair alive for so long after its first redeem.
	Grace time.Duration
	// KillFamily ends every pair of the consent when a dead refresh token or a
	// used code is presented (RFC 9700 section 4.14.2).
	KillFamily bool
	// NoRotation gives a new access token only; the refresh token stays.
	NoRotation bool
	// RevokesOnlyFresh answers the revocation of a pair with an expired access token with
	// success, and does nothing (Doorkeeper before 5.8.1).
	RevokesOnlyFresh bool
	// RevokesFamily ends every pair of the consent with the one that is revoked
	// (RFC 7009 section 2.1 leaves that to the server).
	RevokesFamily bool
	// RefusesOnce answers the first refresh of each consent with invalid_grant and spends
	// nothing, like a server with a problem.
	RefusesOnce bool
	// Lifetime of an access token; zero: 5400 s.
	Lifetime time.Duration
	// Behind is how far the server's clock is behind; it shows in created_at.
	Behind time.Duration
}

// Personalities are the servers on which every promise about saved pairs must hold.
var Personalities = map[string]Personality{
	"ends the old pair at once":             {},
	"overlaps until the first use":          {Overlap: true, RevokesOnlyFresh: true},
	"ten seconds of grace":                  {Grace: 10 * time.Second},
	"ends the family on reuse":              {KillFamily: true},
	"ten seconds of grace, then the family": {Grace: 10 * time.Second, KillFamily: true},
	"does not rotate":                       {NoRotation: true},
	"ends the family on revocation":         {RevokesFamily: true},
}

// codeLife is how long an authorization code may be exchanged.
const codeLife = 10 * time.Minute

// Issuer is an authorization server in memory and the oracle of a world: it knows each live
// pair, and the journal has each presentation.
//
// A fault of its gate becomes what an HTTP client would report: Fail is an error status
// before the effect and a lost answer after it, Throttle is 429, Deny is invalid_client,
// Odd is a page with status 403, Unsent a refused connection, Cut half a body.
type Issuer struct {
	Gate        Gate
	Journal     *Journal
	Personality Personality
	Wait        time.Duration // the wait that errors of the server ask for
	ShutUntil   time.Time     // until then, every request is answered with 503
	Latency     time.Duration // of a refresh or a code's exchange, before it takes effect
	FindsFault  int           // how many further requests are answered with invalid_request

	mu       sync.Mutex
	clients  map[string]token.Secret
	retired  []token.Secret // client secrets that were replaced
	codes    []*code
	pairs    []*pair
	byToken  map[token.Secret]*pair      // of either kind
	byPrint  map[token.Fingerprint]*pair // of its refresh token
	shown    int                         // number of presentations
	families int
	refused  map[int]bool // consents that RefusesOnce has refused
}

// Register makes the issuer refuse every other secret for that client, and clients that are
// not registered. Without any registration, all are accepted.
func (i *Issuer) Register(app rotation.Application) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.clients == nil {
		i.clients = map[string]token.Secret{}
	}
	if was, found := i.clients[app.ClientID]; found && was != app.ClientSecret {
		i.retired = append(i.retired, was)
	}
	i.clients[app.ClientID] = app.ClientSecret
}

// Authorize lets a person consent and returns the code. The challenge is
// PKCE's S256; empty: none.
func (i *Issuer) Authorize(owner rotation.Identity, redirectURI, challenge string) token.Secret {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := &code{i.secret("code", len(i.codes)), owner, redirectURI, challenge, time.Now(), 0}
	i.codes = append(i.codes, c)
	return c.text
}

// Withdraw ends every pair of the consent that the token belongs to, as its owner can at any
// time.
func (i *Issuer) Withdraw(ctx context.Context, t token.Secret) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if p := i.find(t); p != nil {
		i.endFamily(ctx, p.family, Withdrawn)
	}
}

// RedeemElsewhere spends a refresh token as a program other than tokenturn would.
func (i *Issuer) RedeemElsewhere(ctx context.Context, app rotation.Application, refresh token.Secret) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.redeem(ctx, app, rotation.Grant{RefreshToken: refresh}, 0)
}

// Wipe ends every consent, as Procore does each month in one of its environments.
func (i *Issuer) Wipe(ctx context.Context) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for family := range i.families {
		i.endFamily(ctx, family+1, Withdrawn)
	}
}

// Why pairs are dead.
const (
	Withdrawn = "withdrawn" // by Withdraw and Wipe
	reused    = "reuse"     // because a dead refresh token or a used code was presented
)

func (i *Issuer) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if grant.ClientCredentials {
		return i.redeemForClient(ctx, app)
	}
	what, isCode := grant.RefreshToken.Fingerprint(), false
	if grant.RefreshToken.IsZero() {
		what, isCode = grant.Code.Fingerprint(), true
	}
	n := i.present(ctx, what, isCode, app.Environment)
	time.Sleep(i.Latency)
	answer, err := Through(ctx, i.Gate, "issuer.Redeem", token.Connection{}, func(bool) (rotation.Answer, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.redeem(ctx, app, grant, n), nil
	})
	answer = i.received(answer, err)
	i.Journal.Add(ctx, token.Connection{}, Answered{n, what, answer.Class, !i.Takes(what)})
	return answer
}

func (i *Issuer) present(ctx context.Context, what token.Fingerprint, isCode bool, environment string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.shown++
	run := processOf(ctx)
	i.Journal.Add(ctx, token.Connection{}, Presented{N: i.shown, What: what, Code: isCode, Environment: environment,
		Scheduled: run.scheduled, Run: run.run})
	return i.shown
}

// received is the answer that the client reports for the server's answer and the
// transport's error.
func (i *Issuer) received(answer rotation.Answer, err error) rotation.Answer {
	fault, isFault := injected(err)
	switch {
	case err == nil:
		return answer
	case !isFault: // the context ended before anything was written
		return rotation.Answer{Class: rotation.NotSent, Detail: "the context ended first"}
	case fault.Kind == Cut && answer.Class == rotation.Captured:
		body := answer.Body.Reveal()
		return rotation.Answer{Class: rotation.Captured, Body: token.NewSecret(body[:len(body)/2]),
			Detail: "HTTP 200, cut off"}
	case fault.At.When == After:
		return rotation.Answer{Class: rotation.UnknownResult, Detail: "connection reset"}
	case fault.Kind == Throttle:
		return rotation.Answer{Class: rotation.RateLimited, Wait: i.Wait, Detail: "HTTP 429"}
	case fault.Kind == Deny:
		return rotation.Answer{Class: rotation.ClientFault, Detail: "invalid_client"}
	case fault.Kind == Odd:
		return rotation.Answer{Class: rotation.OddRefusal, Detail: "HTTP 403, text/html"}
	case fault.Kind == Cancel:
		return rotation.Answer{Class: rotation.UnknownResult, Detail: "the context ended first"}
	case fault.Kind == Unsent:
		return rotation.Answer{Class: rotation.NotSent, Detail: "connection refused"}
	}
	return rotation.Answer{Class: rotation.UnknownResult, Wait: i.Wait, Detail: "HTTP 503"}
}

func (i *Issuer) Identify(ctx context.Context, _ rotation.Application, access token.Secret,
	company string) (rotation.Identity, error) {
	return Through(ctx, i.Gate, "issuer.Identify", token.Connection{}, func(bool) (rotation.Identity, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		p := i.use(ctx, access)
		if p == nil {
			return rotation.Identity{}, fmt.Errorf("asking for the token's owner: %w", rotation.ErrTokenRefused)
		}
		owner := p.owner
		switch {
		case p.family == 0: // the app's own token, which every company admits
			owner.Company = company
		case company != owner.Company:
			owner.Company = ""
		}
		return owner, nil
	})
}

// Accepts makes an API request with the access token and reports whether it was accepted.
func (i *Issuer) Accepts(ctx context.Context, access token.Secret) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.use(ctx, access) != nil
}

func (i *Issuer) Revoke(ctx context.Context, app rotation.Application, t token.Secret) error {
	_, err := Through(ctx, i.Gate, "issuer.Revoke", token.Connection{}, func(bool) (struct{}, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if !i.knows(app) {
			return struct{}{}, fmt.Errorf("revoking a token: %w", rotation.ErrCredentialsRefused)
		}
		p := i.find(t)
		switch {
		case p == nil, i.Personality.RevokesOnlyFresh && !time.Now().Before(p.expires):
		case i.Personality.RevokesFamily && p.family != 0:
			i.endFamily(ctx, p.family, "revoked")
		default:
			i.end(ctx, p, "revoked")
		}
		return struct{}{}, nil
	})
	return err
}

// Parse reads the issuer's own answers strictly. In damaged answers it finds the whole
// refresh tokens.
func (i *Issuer) Parse(body token.Secret) rotation.Judgement {
	var answer struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		TokenType    string `json:"token_type"`
		ExpiresIn    int64  `json:"expires_in"`
		CreatedAt    int64  `json:"created_at"`
	}
	err := json.Unmarshal([]byte(body.Reveal()), &answer)
	names := refreshTokensIn(body)
	switch {
	case len(names) == 0 && err == nil && answer.AccessToken != "" && answer.ExpiresIn > 0:
		return rotation.Judgement{Verdict: rotation.AccessOnly, Reason: "the answer has no refresh token",
			Pair: pairOf(answer.AccessToken, token.Secret{}, answer.TokenType, answer.ExpiresIn, answer.CreatedAt)}
	case len(names) == 0:
		return rotation.Judgement{Verdict: rotation.Empty, Reason: "the answer has no whole refresh token"}
	case len(names) > 1:
		return rotation.Judgement{Verdict: rotation.Contradictory, Reason: "the answer has several refresh tokens"}
	case err != nil:
		return rotation.Judgement{Verdict: rotation.Salvaged, Pair: token.Pair{RefreshToken: names[0]},
			Reason: "the answer is not JSON"}
	}
	return rotation.Judgement{Verdict: rotation.Sound,
		Pair: pairOf(answer.AccessToken, names[0], answer.TokenType, answer.ExpiresIn, answer.CreatedAt)}
}

func pairOf(access string, refresh token.Secret, kind string, expiresIn, createdAt int64) token.Pair {
	return token.Pair{AccessToken: token.NewSecret(access), RefreshToken: refresh, TokenType: kind,
		Lifetime: time.Duration(expiresIn) * time.Second, CreatedAt: time.Unix(createdAt, 0).UTC()}
}
