package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionCommand() *cobra.Command {
	return noun("connection", "What people connected, and how it fares",
		"A connection is one person's consent to the app, named ENV/NAME, such as sandbox/acme.", "",
		c.connectionInvite(), c.connectionAuthorize(), c.connectionImport(), c.connectionServiceAccount(),
		c.connectionList(), c.connectionShow(), c.connectionHistory(), c.connectionRotate(), c.connectionRelease(),
		c.connectionDiscard(), c.connectionDisconnect(), c.connectionUndo(), c.connectionProtect())
}

// connectionAnswer is what is told of one connection. Nothing in it is secret.
type connectionAnswer struct {
	Connection token.Connection   `json:"connection"`
	Status     rotation.Status    `json:"status"`
	Epoch      int64              `json:"epoch"`
	Generation int64              `json:"generation"`
	ExpiresAt  time.Time          `json:"expires_at,omitzero"` // of the access token
	RotatedAt  time.Time          `json:"rotated_at,omitzero"`
	DueAt      time.Time          `json:"due_at,omitzero"`
	Failure    *rotation.Failure  `json:"failure,omitempty"` // the gravest of Failures
	Failures   []rotation.Failure `json:"failures,omitempty"`
	// Held: a person must say what becomes of an answer that is quarantined.
	Quarantined bool `json:"held,omitempty"`
	// ServiceAccount: the app itself, for its own credentials.
	ServiceAccount bool `json:"service_account,omitempty"`
}

func newConnectionAnswer(r rotation.Record) connectionAnswer {
	a := connectionAnswer{Connection: r.Connection, Status: r.Status, Epoch: r.Epoch, Generation: r.Generation,
		RotatedAt: r.RotatedAt, DueAt: r.DueAt, Failure: r.Failure(), Failures: r.Failures, Quarantined: r.Quarantined,
		ServiceAccount: r.ServiceAccount}
	if r.Current != nil {
		a.ExpiresAt = r.Current.ExpiresAt
	}
	return a
}

func (c *cli) connectionList() *cobra.Command {
	return verb("list", "List all connections", "", `  tokenturn connection list
  tokenturn --json connection list | jq -r '.[] | select(.status != "active").connection'`,
		func(ctx context.Context, _ *cobra.Command) error {
			return c.with(ctx, func(in *installation) error {
				records, err := in.ledger.List(ctx)
				if err != nil {
					return err
				}
				list := make([]connectionAnswer, len(records))
				for i, r := range records {
					list[i] = newConnectionAnswer(r)
				}
				if len(list) == 0 {
					c.say("There are no connections yet; make one with: tokenturn connection invite ENV/NAME")
				}
				return c.answer(list, func(w io.Writer) { printConnections(w, list, time.Now(), c.painter()) })
			})
		})
}

func printConnections(w io.Writer, list []connectionAnswer, now time.Time, p painter) {
	if len(list) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "CONNECTION\t%s\tEXPIRES\tGENERATION\tLAST ROTATED\tNEXT DUE\n", p.paint("STATUS", plain))
	for _, a := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d.%d\t%s\t%s\n", a.Connection, a.paintedStatus(p), when(a.ExpiresAt, now),
			a.Epoch, a.Generation, when(a.RotatedAt, now), next(a.DueAt, now))
	}
	t.Flush()
}

// paintedStatus says whether somebody has to do something.
func (a connectionAnswer) paintedStatus(p painter) string {
	text, with := string(a.Status), plain
	switch {
	case a.Status == rotation.NeedsConsent:
		with = red
	case a.Quarantined:
		text, with = text+" (held)", red
	case a.Failure != nil:
		text, with = text+" ("+a.Failure.Class+")", yellow
	case a.Status == rotation.Active:
		with = green
	}
	return p.paint(text, with)
}

// when shows a time in a table.
func when(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return distance(t, now)
}

// next shows a due time in a table.
func next(t, now time.Time) string {
	if !t.IsZero() && !t.After(now) {
		return "now"
	}
	return when(t, now)
}

// connectionDetail is connectionAnswer with all else that is known.
type connectionDetail struct {
	connectionAnswer
	Stack     string            `json:"stack"`
	Published string            `json:"published,omitempty"` // version id that readers see
	Attempt   *rotation.Attempt `json:"attempt,omitempty"`
	Pin       *rotation.Pin     `json:"pin,omitempty"`
	Answers   []answerDetail    `json:"answers"`
	Probe     *procore.Probe    `json:"probe,omitempty"` // with --probe
}

// answerDetail tells of an answer of the token endpoint that is kept.
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
		"Show all that is known of a connection, without any token",
		`With --probe the published access token is tried as well: at the login host, which
knows whether it is good, and at the API, which knows whether it may act in the
connection's company. That spends no refresh token. It exits with 1 if the token is
good for nothing or not for the company, with 5 if that cannot be told now.`,
		`  tokenturn connection show sandbox/acme
  tokenturn connection show sandbox/acme --probe
  tokenturn --json connection show sandbox/acme`,
		func(ctx context.Context, _ *cobra.Command, conn token.Connection) error {
			return c.with(ctx, func(in *installation) error { return c.showConnection(ctx, in, conn, probe) })
		})
	cmd.Flags().BoolVar(&probe, "probe", false, "try the access token at Procore")
	return cmd
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

// probe tries the token that readers of conn see. The error says what to do
// where it is not good for what it is there for.
func (in *installation) probe(ctx context.Context, conn token.Connection) (*procore.Probe, error) {
	doc, err := in.published(ctx, conn)
	if err != nil {
		return nil, err
	}
	app, err := in.application(ctx, conn.Environment)
	if err != nil {
		return nil, err
	}
	p := in.issuer.Probe(ctx, app, doc.AccessToken, doc.CompanyID)
	level, remedy := doctor.Advice(p, conn)
	if code := exitCodes[level]; code != done {
		return &p, exitf(code, "%s: %s; %s", conn, p.Detail, remedy)
	}
	return &p, nil
}

func (d connectionDetail) print(w io.Writer, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	line := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
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
		line("", "%s", endHold(d.Connection))
	}
	line("epoch.generation", "%d.%d", d.Epoch, d.Generation)
	at("access token expires", d.ExpiresAt)
	at("last rotated", d.RotatedAt)
	at("next due", d.DueAt)
	if d.Published != "" {
		line("published version", "%s", d.Published)
	}
	if a := d.Attempt; a != nil {
		line("attempt", "begun %s, over %s, presentation %d of its token", stamp(a.BegunAt), stamp(a.Until), a.Presentations)
	}
	for _, f := range d.Failures {
		line("failure", "%s at step %s, %d in a row: %s", f.Class, f.Step, f.Count, f.Detail)
		at("tried again", f.NextAt)
	}
	if p := d.Pin; p != nil {
		line("pinned to", "environment %s, client id with fingerprint %s", p.Environment, p.Client)
		line("", "Procore user %s, company %s", orDash(p.ResourceOwner), orDash(p.Company))
	}
	if p := d.Probe; p != nil {
		line("access token", "%s", strings.TrimSuffix(fmt.Sprintf("%s: %s", p.Health, p.Detail), ": "))
	}
	for _, m := range d.Answers {
		line("answer kept", "%d.%d by %s, %s, saved %s", m.Epoch, m.Generation, m.Source, m.State, stamp(m.SavedAt))
		if m.Reason != "" {
			line("", "%s", m.Reason)
		}
	}
	line("installation", "%s", d.Stack)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func (c *cli) connectionHistory() *cobra.Command {
	var limit int
	cmd := onConnection(token.ParseConnection, "history ENV/NAME", "Show what happened to a connection, newest first", "",
		`  tokenturn connection history sandbox/acme --limit 10`,
		func(ctx context.Context, cmd *cobra.Command, conn token.Connection) error {
			if limit < 1 {
				return usageError(cmd, errors.New("--limit takes a number of at least 1"))
			}
			return c.with(ctx, func(in *installation) error {
				if _, _, err := in.load(ctx, conn); err != nil {
					return err
				}
				events, err := in.ledger.History(ctx, conn, limit)
				if err != nil {
					return err
				}
				if events == nil {
					events = []rotation.Event{}
				}
				return c.answer(events, func(w io.Writer) { printEvents(w, events) })
			})
		})
	cmd.Flags().IntVar(&limit, "limit", 50, "how many events at most")
	return cmd
}

func printEvents(w io.Writer, events []rotation.Event) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, e := range events {
		fmt.Fprintf(t, "%s\t%d.%d\t%s\t%s\n", stamp(e.At), e.Epoch, e.Generation, e.Kind, e.Detail)
	}
	t.Flush()
}
