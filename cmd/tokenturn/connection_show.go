package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// connectionDetail is connectionAnswer with everything else that is known.
type connectionDetail struct {
	connectionAnswer
	Stack     string            `json:"stack"`
	Published string            `json:"published,omitempty"` // version id that readers see
	Attempt   *rotation.Attempt `json:"attempt,omitempty"`
	Pin       *rotation.Pin     `json:"pin,omitempty"`
	Answers   []answerDetail    `json:"answers"`
	Probe     *procore.Probe    `json:"probe,omitempty"` // with --probe
}

// answerDetail describes a token response that is kept.
type answerDetail struct {
	rotation.ResponseKey
	Source  rotation.Source        `json:"source"`
	State   rotation.ResponseState `json:"state"`
	Reason  string                 `json:"reason,omitempty"`
	SavedAt time.Time              `json:"saved_at"`
}

func (c *cli) connectionShow() *cobra.Command {
	var probe bool
	cmd := onConnection(token.ParseConnection, "show ENV/NAME",
		"Show everything about a connection except its tokens",
		`With --probe tokenturn also tests the published access token: the login host says whether
it is valid, and the API says whether it has access to the connection's company. This uses
no refresh token. The command then exits with 1 if the token is not valid or has no access
to the company, and with 5 if that cannot be determined now, or if a refresh that has no
result yet has probably invalidated the token.`,
		func(ctx context.Context, _ *cobra.Command, conn token.Connection) error {
			return c.with(ctx, func(in *installation) error { return c.showConnection(ctx, in, conn, probe) })
		})
	cmd.Flags().BoolVar(&probe, "probe", false, "test the access token at Procore")
	return c.withExamples(cmd,
		example{"Show the state of a connection", "tokenturn connection show sandbox/acme"},
		example{"Test the access token of a connection at Procore", "tokenturn connection show sandbox/acme --probe"},
		example{"Show the connection as JSON", "tokenturn --json connection show sandbox/acme"})
}

func (c *cli) showConnection(ctx context.Context, in *installation, conn token.Connection, probe bool) error {
	rec, responses, err := in.load(ctx, conn)
	if err != nil {
		return err
	}
	d := connectionDetail{connectionAnswer: newConnectionAnswer(rec), Stack: rec.Stack, Published: rec.Published,
		Attempt: rec.Attempt, Pin: rec.Pin, Answers: []answerDetail{}}
	for _, m := range responses {
		d.Answers = append(d.Answers, answerDetail{m.Key, m.Source, m.State, m.Reason, m.SavedAt})
	}
	var fault error
	if probe {
		d.Probe, fault = in.probe(ctx, conn)
	}
	return errors.Join(c.answer(d, func(w io.Writer) { d.print(w, time.Now()) }), fault)
}

// probe tests the token that readers of conn see. If the token does not work, the error
// says what to do.
func (in *installation) probe(ctx context.Context, conn token.Connection) (*procore.Probe, error) {
	rec, _, err := in.load(ctx, conn)
	if err != nil {
		return nil, err
	}
	doc, err := in.published(ctx, conn)
	if err != nil {
		return nil, err
	}
	app, err := in.application(ctx, conn.Environment)
	if err != nil {
		return nil, err
	}
	p := in.issuer.Probe(ctx, app, doc.AccessToken, doc.CompanyID)
	level, remedy := doctor.Advice(p, rec, in.settings.Refreshing(rec, time.Now()))
	if code := exitCodes[level]; code != done {
		return &p, exitf(code, "%s: %s; %s", conn, p.Detail, remedy)
	}
	return &p, nil
}

func (d connectionDetail) print(w io.Writer, now time.Time) {
	var t table
	line := func(name, format string, args ...any) { t.row(name, fmt.Sprintf(format, args...)) }
	at := func(name string, time time.Time) {
		if !time.IsZero() {
			line(name, "%s, %s", stamp(time), distance(time, now))
		}
	}
	line("connection", "%s", d.Connection)
	if d.ServiceAccount {
		line("kind", "service account of the app")
	}
	line("status", "%s", d.Status)
	if d.Quarantined {
		line("", "%s", quarantineAdvice(d.Connection))
	}
	line("generation", "%s (epoch %d, refreshes since then: %d)", generation(d.Epoch, d.Generation), d.Epoch, d.Generation)
	at("invited until", d.InvitedUntil)
	at("access token expires", d.ExpiresAt)
	at("last rotated", d.RotatedAt)
	at("next due", d.DueAt)
	if d.Published != "" {
		line("published version", "%s", d.Published)
	}
	if a := d.Attempt; a != nil {
		line("attempt", "begun %s, valid until %s, presentation %d of the refresh token", stamp(a.BegunAt), stamp(a.Until),
			a.Presentations)
	}
	for _, f := range d.Failures {
		line("failure", "%s", f.Summary())
		at("next try", f.NextAt)
	}
	switch p := d.Pin; {
	case p == nil:
	case d.ServiceAccount: // it uses the client id that is stored
		line("pinned to", "environment %s, company %s", p.Environment, p.Company)
	default:
		client := ""
		if p.Client != "" {
			client = fmt.Sprintf(", client id with fingerprint %s", p.Client)
		}
		line("pinned to", "environment %s%s", p.Environment, client)
		line("", "Procore user %s, company %s", orDash(p.ResourceOwner), orDash(p.Company))
	}
	if p := d.Probe; p != nil {
		line("access token", "%s", strings.TrimSuffix(fmt.Sprintf("%s: %s", p.Health, p.Detail), ": "))
	}
	for _, m := range d.Answers {
		state := ""
		if m.State != rotation.Saved {
			state = fmt.Sprintf("%s, ", m.State)
		}
		line("token response", "generation %s from %s, %ssaved %s", generation(m.Epoch, m.Generation), m.Source, state,
			stamp(m.SavedAt))
		if m.Reason != "" {
			line("", "%s", m.Reason)
		}
	}
	line("installation", "%s", d.Stack)
	t.print(w)
}
