package rotation_test

import (
	"context"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// alteredIssuer is an issuer that changes its answers.
type alteredIssuer struct {
	*rotationtest.Issuer
	change func(body string) string
	right  token.Secret // the refresh token of the last answer
}

func (o *alteredIssuer) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := o.Issuer.Redeem(ctx, app, grant)
	o.right = o.Parse(answer.Body).Pair.RefreshToken
	if answer.Class == rotation.Captured {
		answer.Body = token.NewSecret(o.change(answer.Body.Reveal()))
	}
	return answer
}

// withSeveralTokens adds other refresh tokens to the answers.
func withSeveralTokens(i *rotationtest.Issuer) *alteredIssuer {
	return &alteredIssuer{Issuer: i, change: func(body string) string {
		return body + `{"refresh_token":"another"}{"refresh_token":"a third"}`
	}}
}

// withExtraText puts text around the answers.
func withExtraText(i *rotationtest.Issuer) *alteredIssuer {
	return &alteredIssuer{Issuer: i, change: func(body string) string { return body + "<!-- served by node 7 -->" }}
}

// withHugeAnswers makes the answers larger than a secret can hold.
func withHugeAnswers(i *rotationtest.Issuer) *alteredIssuer {
	return &alteredIssuer{Issuer: i, change: func(body string) string {
		return strings.Replace(body, "{", `{"padding":"`+strings.Repeat("x", 25<<10)+`",`, 1)
	}}
}

// withoutLifetime leaves out how long the access token lives.
func withoutLifetime(i *rotationtest.Issuer) *alteredIssuer {
	return &alteredIssuer{Issuer: i, change: func(body string) string {
		return strings.Replace(body, `"expires_in"`, `"expires"`,
			1)
	}}
}

// unreadableIssuer answers in an unknown encoding.
type unreadableIssuer struct{ *alteredIssuer }

func withUnknownEncoding(i *rotationtest.Issuer) unreadableIssuer {
	return unreadableIssuer{&alteredIssuer{Issuer: i, change: func(body string) string { return "\x1b" + body }}}
}

func (i unreadableIssuer) Parse(body token.Secret) rotation.Judgement {
	if strings.HasPrefix(body.Reveal(), "\x1b") {
		return rotation.Judgement{Verdict: rotation.Unreadable, Reason: "the answer is in no known encoding"}
	}
	return i.Issuer.Parse(body)
}

// faultFinding answers the first request with invalid_request.
type faultFinding struct {
	*rotationtest.Issuer
	done bool
}

func (d *faultFinding) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if d.done {
		return d.Issuer.Redeem(ctx, app, grant)
	}
	d.done = true
	return rotation.Answer{Class: rotation.RequestFault, Detail: "HTTP 400 invalid_request"}
}

// panicking panics the first time it reads an answer.
type panicking struct {
	*rotationtest.Issuer
	panicked bool
}

func (s *panicking) Parse(body token.Secret) rotation.Judgement {
	if !s.panicked {
		s.panicked = true
		panic("an answer that nobody expected")
	}
	return s.Issuer.Parse(body)
}
