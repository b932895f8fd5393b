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

// defaultRecovery is how long a secret can be restored, unless a flag says otherwise.
const defaultRecovery = 7 * day

func (c *cli) connectionDisconnect() *cobra.Command {
	var yes bool
	var days int
	cmd := onConnection(token.ParseConnection, "disconnect ENV/NAME",
		"Disconnect: revoke the tokens and delete the secret",
		`tokenturn stops using the connection, its invitations stop working, Procore revokes its
access token and refresh token, and its secret is scheduled for deletion, so readers lose
access at once. Until the secret is deleted, "tokenturn connection undo" restores it, but
not the tokens: they stay revoked.

Prompts for the connection's name unless you add --yes. The output lists any revocation
that could not be confirmed. Exits with 5 if a part must wait: the connection is
disconnected, and the same command does the rest later.`,
		func(ctx context.Context, cmd *cobra.Command, conn token.Connection) error {
			if days < 7 || days > 30 { // the limits of Secrets Manager, the same for every store
				return usageError(cmd, errors.New("--recovery-days takes 7 to 30"))
			}
			return c.with(ctx, func(in *installation) error { return c.disconnect(ctx, in, conn, yes, time.Duration(days)*day) })
		})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not prompt for the name")
	cmd.Flags().IntVar(&days, "recovery-days", 7, "days until the secret is deleted")
	return c.withExamples(cmd,
		example{"Disconnect, after a prompt for the name", "tokenturn connection disconnect sandbox/acme"},
		example{"Disconnect without a prompt; keep the secret recoverable for 30 days",
			"tokenturn connection disconnect production/acme --yes --recovery-days 30"})
}

// disconnectAnswer is what `connection disconnect --json` answers.
type disconnectAnswer struct {
	Connection token.Connection `json:"connection"`
	Status     rotation.Status  `json:"status"`
	// Revocations are the pairs that were revoked; Unrevoked is how many a later run
	// still has to revoke.
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
	Result     string `json:"result"` // "revoked", or what is known instead
}

func (c *cli) disconnect(ctx context.Context, in *installation, conn token.Connection, yes bool,
	recovery time.Duration) error {
	rec, _, err := in.load(ctx, conn)
	if err == nil {
		err = rec.CheckStack(in.settings.Stack)
	}
	if err != nil {
		return err
	}
	if err := c.confirm(ctx, conn.String(), yes, fmt.Sprintf("The tokens of %s cannot be restored. "+
		"Type its name to disconnect it", conn)); err != nil {
		return err
	}
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	ctx, finished := c.uninterrupted(ctx, finishingFirst)
	defer finished()
	a, err := in.disconnectNow(ctx, rotator, conn, recovery)
	if err != nil {
		return err
	}
	return errors.Join(c.answer(a, a.print), a.unfinished())
}

// disconnectNow disconnects without a question.
func (in *installation) disconnectNow(ctx context.Context, rotator *rotation.Rotator, conn token.Connection,
	recovery time.Duration) (*disconnectAnswer, error) {
	report, err := rotator.Disconnect(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("disconnecting %s: %w; it is not known whether it is disconnected, run the same command again",
			conn, err)
	}
	a, err := in.disconnected(ctx, conn, report.Connections[0].Detail)
	if err == nil && a.RetryAt.IsZero() {
		err = a.deleteSecret(ctx, in.deletions, recovery)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is disconnected, but not everything is done: %w; run the same command again", conn, err)
	}
	return a, nil
}

// disconnected describes what is done of the disconnection.
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

// refreshWasOpen reports whether the disconnection at that time ended an attempt with an
// answer that may still arrive. Both rows are written at once, in any order.
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
	fmt.Fprintf(w, "%s is disconnected.\n", a.Connection)
	for _, r := range a.Revocations {
		fmt.Fprintf(w, "Generation %s: %s.\n", generation(r.Epoch, r.Generation), r.Result)
	}
	if a.Detail != "" {
		fmt.Fprintf(w, "Not confirmed: %s.\n", a.Detail)
	}
	switch {
	case a.Secret == "none":
		fmt.Fprintln(w, "It has no secret.")
	case a.Secret == "scheduled" && a.DeletedAt.IsZero():
		fmt.Fprintln(w, "Its secret was already scheduled for deletion.")
	case a.Secret == "scheduled":
		fmt.Fprintf(w, "Its secret is deleted after %s. To restore it before that: tokenturn connection undo %s\n",
			stamp(a.DeletedAt), a.Connection)
	}
}

// unfinished says what must wait.
func (a *disconnectAnswer) unfinished() error {
	switch {
	case !a.RetryAt.IsZero():
		return exitf(tryLater, "a refresh of %s was in progress, and its response may still arrive; the secret is kept "+
			"until tokenturn has searched it for that response; run the same command again after %s", a.Connection,
			stamp(a.RetryAt))
	case a.Unrevoked > 0:
		return exitf(tryLater, "not revoked yet: %s of %s; the next run tries again, and so does the same command",
			counted(a.Unrevoked, "pair", "pairs"), a.Connection)
	}
	return nil
}
