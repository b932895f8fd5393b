package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const day = 24 * time.Hour

func (c *cli) connectionDisconnect() *cobra.Command {
	var yes bool
	var days int
	cmd := onConnection(token.ParseConnection, "disconnect ENV/NAME", "Take a connection out of use",
		`From then on nothing of the connection is used, its links do not work any more, both
halves of its pair are revoked at Procore, and its secret is scheduled for deletion,
which takes it away from its readers at once. Until it is gone for good,
"tokenturn connection undo" gives the secret back, but never a token that works.

Asks for the connection's name unless --yes is given. What could not be confirmed
about the revocation is said. Exits with 5 if a part has to wait: the connection is
out of use then all the same, and the same command later does the rest.`,
		func(ctx context.Context, cmd *cobra.Command, conn token.Connection) error {
			if days < 7 || days > 30 { // the bounds of Secrets Manager, kept everywhere
				return usageError(cmd, errors.New("--recovery-days takes 7 to 30"))
			}
			return c.with(ctx, func(in *installation) error { return c.disconnect(ctx, in, conn, yes, time.Duration(days)*day) })
		})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().IntVar(&days, "recovery-days", 7, "days until the secret is gone for good")
	return c.withExamples(cmd,
		example{"Disconnect after typing the name", "tokenturn connection disconnect sandbox/acme"},
		example{"Disconnect without a prompt; keep the secret recoverable for 30 days",
			"tokenturn connection disconnect production/acme --yes --recovery-days 30"})
}

// disconnectAnswer is what `connection disconnect --json` answers.
type disconnectAnswer struct {
	Connection token.Connection `json:"connection"`
	Status     rotation.Status  `json:"status"`
	// Revocations tell of each pair that was revoked; Unrevoked is how many
	// are still to be, by a later run.
	Revocations []revocation `json:"revocations"`
	Unrevoked   int          `json:"unrevoked"`
	Detail      string       `json:"detail,omitempty"` // what could not be done or confirmed
	Secret      string       `json:"secret"`           // scheduled, none, or kept until RetryAt
	DeletedAt   time.Time    `json:"deleted_at,omitzero"`
	RetryAt     time.Time    `json:"retry_at,omitzero"`
}

type revocation struct {
	Epoch      int64  `json:"epoch"`
	Generation int64  `json:"generation"`
	Result     string `json:"result"` // "revoked", or what else can be said
}

func (c *cli) disconnect(ctx context.Context, in *installation, conn token.Connection, yes bool,
	recovery time.Duration) error {
	if _, _, err := in.load(ctx, conn); err != nil {
		return err
	}
	if err := c.confirm(ctx, conn.String(), yes, fmt.Sprintf("Nothing brings the tokens of %s back. "+
		"Type its name to disconnect it", conn)); err != nil {
		return err
	}
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	ctx, finished := c.uninterrupted(ctx, finishingFirst)
	defer finished()
	report, err := rotator.Disconnect(ctx, conn)
	if err != nil {
		return fmt.Errorf("disconnecting %s: %w; whether it is out of use is not known, run the same command again", conn,
			err)
	}
	a, err := in.disconnected(ctx, conn, report.Connections[0].Detail)
	if err == nil && a.RetryAt.IsZero() {
		err = a.deleteSecret(ctx, in.deletions, recovery)
	}
	if err != nil {
		return fmt.Errorf("%s is out of use, but not all is done: %w; run the same command again", conn, err)
	}
	return errors.Join(c.answer(a, a.print), a.unfinished())
}

// disconnected tells how far the disconnection has come.
func (in *installation) disconnected(ctx context.Context, conn token.Connection, detail string) (*disconnectAnswer,
	error) {
	rec, responses, err := in.load(ctx, conn)
	if err != nil {
		return nil, err
	}
	events, err := in.ledger.History(ctx, conn, 200)
	if err != nil {
		return nil, err
	}
	a := &disconnectAnswer{Connection: conn, Status: rec.Status, Revocations: []revocation{}, Unrevoked: len(responses),
		Detail: detail,
		Secret: "kept"}
	for _, e := range events { // newest first
		if e.Kind == "disconnected" {
			if refreshWasOpen(events, e.At) {
				a.RetryAt = rec.SearchAt
			}
			break
		}
		if e.Kind == "revoked" {
			a.Revocations = append(a.Revocations, revocation{e.Epoch, e.Generation, e.Detail})
		}
	}
	slices.Reverse(a.Revocations)
	return a, nil
}

// refreshWasOpen reports whether the disconnection at that time has ended an attempt, whose
// answer may still arrive. Both rows are written at once, in any order.
func refreshWasOpen(events []rotation.Event, at time.Time) bool {
	return slices.ContainsFunc(events, func(e rotation.Event) bool { return e.Kind == "ended" && e.At.Equal(at) })
}

func (a *disconnectAnswer) deleteSecret(ctx context.Context, d deletions, recovery time.Duration) (err error) {
	a.Secret = "scheduled"
	a.DeletedAt, err = d.Schedule(ctx, a.Connection, recovery)
	if errors.Is(err, rotation.ErrNoSecret) {
		a.Secret = "none"
		return nil
	}
	return err
}

func (a *disconnectAnswer) print(w io.Writer) {
	fmt.Fprintf(w, "%s is out of use.\n", a.Connection)
	for _, r := range a.Revocations {
		fmt.Fprintf(w, "Pair %d.%d: %s.\n", r.Epoch, r.Generation, r.Result)
	}
	if a.Detail != "" {
		fmt.Fprintf(w, "Not confirmed: %s.\n", a.Detail)
	}
	switch {
	case a.Secret == "none":
		fmt.Fprintln(w, "It has no secret.")
	case a.Secret == "scheduled" && a.DeletedAt.IsZero():
		fmt.Fprintln(w, "Its secret was scheduled for deletion before.")
	case a.Secret == "scheduled":
		fmt.Fprintf(w, "Its secret goes for good after %s; until then: tokenturn connection undo %s\n", stamp(a.DeletedAt),
			a.Connection)
	}
}

// unfinished says what has to wait.
func (a *disconnectAnswer) unfinished() error {
	switch {
	case !a.RetryAt.IsZero():
		return exitf(tryLater, "a refresh of %s was under way, and what it may still bring is looked for in its secret, "+
			"which is kept until then; run the same command again after %s", a.Connection, stamp(a.RetryAt))
	case a.Unrevoked > 0:
		return exitf(tryLater, "%d pairs of %s are not revoked yet; the next run tries that again, "+
			"and so does the same command", a.Unrevoked, a.Connection)
	}
	return nil
}
