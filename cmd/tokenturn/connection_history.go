package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionHistory() *cobra.Command {
	var limit int
	cmd := onConnection(token.ParseConnection, "history ENV/NAME", "Show the events of a connection, newest first", "",
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
	cmd.Flags().IntVar(&limit, "limit", 50, "maximum number of events")
	return c.withExamples(cmd,
		example{"Show the last ten events of a connection", "tokenturn connection history sandbox/acme --limit 10"})
}

func printEvents(w io.Writer, events []rotation.Event) {
	var t table
	for _, e := range events {
		t.row(stamp(e.At), generation(e.Epoch, e.Generation), e.Kind, e.Detail)
	}
	t.print(w)
}
