package rotation_test

import (
	"context"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// odd is an issuer whose answers are not what they should be.
type odd struct {
	*rotationtest.Issuer
	change func(body string) string
	right  token.Secret // the refresh token of the last answer
}

func (o *odd) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := o.Issuer.Redeem(ctx, app, grant)
	o.right = o.Parse(answer.Body).Pair.RefreshToken
	if answer.Class == rotation.Captured {
		answer.Body = token.NewSecret(o.change(answer.Body.Reveal()))
	}
	return answer
}

// contradicting adds other refresh tokens to the answers.
func contradicting(i *rotationtest.Issuer) *odd {
	return &odd{Issuer: i, change: func(body string) string {
		return body + `{"refresh_token":"another"}{"refresh_token":"a third"}`
	}}
}

// rambling puts text around the answers.
func rambling(i *rotationtest.Issuer) *odd {
	return &odd{Issuer: i, change: func(body string) string { return body + "<!-- served by node 7 -->" }}
}

// immense makes the answers larger than a secret can hold.
func immense(i *rotationtest.Issuer) *odd {
	return &odd{Issuer: i, change: func(body string) string {
		return strings.Replace(body, "{", `{"padding":"`+strings.Repeat("x", 25<<10)+`",`, 1)
	}}
}

// taciturn leaves out how long the access token lives.
func taciturn(i *rotationtest.Issuer) *odd {
	return &odd{Issuer: i, change: func(body string) string {
		return strings.Replace(body, `"expires_in"`, `"expires"`,
			1)
	}}
}

// illegible answers in an encoding that nobody knows.
type illegible struct{ *odd }

func illegibly(i *rotationtest.Issuer) illegible {
	return illegible{&odd{Issuer: i, change: func(body string) string { return "\x1b" + body }}}
}

func (i illegible) Parse(body token.Secret) rotation.Judgement {
	if strings.HasPrefix(body.Reveal(), "\x1b") {
		return rotation.Judgement{Verdict: rotation.Unreadable, Reason: "the answer is in no known encoding"}
	}
	return i.Issuer.Parse(body)
}

// demanding finds fault with the first request.
type demanding struct {
	*rotationtest.Issuer
	satisfied bool
}

func (d *demanding) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if d.satisfied {
		return d.Issuer.Redeem(ctx, app, grant)
	}
	d.satisfied = true
	return rotation.Answer{Class: rotation.RequestFault, Detail: "HTTP 400 invalid_request"}
}

// startling meets a fault in this program, the first time it reads an answer.
type startling struct {
	*rotationtest.Issuer
	calm bool
}

func (s *startling) Parse(body token.Secret) rotation.Judgement {
	if !s.calm {
		s.calm = true
		panic("an answer that nobody expected")
	}
	return s.Issuer.Parse(body)
}
