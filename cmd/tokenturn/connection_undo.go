package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionUndo() *cobra.Command {
	return c.withExamples(onConnection(token.ParseConnection, "undo ENV/NAME",
		"Restore the secret of a disconnected connection",
		`Cancels the scheduled deletion of the connection's secret, which is possible until it is
deleted. Its tokens stay revoked: a person must give a new consent before the connection
works again. A service account needs no consent; connect it again.`,
		func(ctx context.Context, _ *cobra.Command, conn token.Connection) error {
			return c.with(ctx, func(in *installation) error { return c.undo(ctx, in, conn) })
		}),
		example{"Restore the secret of a disconnected connection", "tokenturn connection undo sandbox/acme"})
}

// undoAnswer is what `connection undo --json` answers.
type undoAnswer struct {
	Connection token.Connection `json:"connection"`
	Status     rotation.Status  `json:"status"`
	Secret     string           `json:"secret"` // restored
}

func (c *cli) undo(ctx context.Context, in *installation, conn token.Connection) error {
	rec, _, err := in.load(ctx, conn)
	if err != nil {
		return err
	}
	switch err := in.deletions.Cancel(ctx, conn); {
	case errors.Is(err, rotation.ErrNoSecret) && rec.ServiceAccount:
		return exitf(notFound, "%s has no secret to restore; connect the service account again, which creates one, with: "+
			"tokenturn connection service-account %[1]s --company %s", conn, rec.Pin.Company)
	case errors.Is(err, rotation.ErrNoSecret):
		return exitf(notFound, "%s has no secret to restore; connect again, which creates one, with: "+
			"tokenturn connection invite %[1]s", conn)
	case err != nil:
		return err
	}
	switch {
	case rec.Status == rotation.Active:
		c.say("The next run publishes the current token of %s in it.", conn)
	case rec.ServiceAccount:
		c.say("Its tokens stay revoked. Connect the service account %s again with: "+
			"tokenturn connection service-account %[1]s --company %s", conn, rec.Pin.Company)
	default:
		c.say("Its tokens stay revoked. Connect %s again with: tokenturn connection invite %[1]s", conn)
	}
	return c.answer(undoAnswer{conn, rec.Status, "restored"}, func(w io.Writer) {
		fmt.Fprintf(w, "%s: its secret is not scheduled for deletion, status %s\n", conn, rec.Status)
	})
}
