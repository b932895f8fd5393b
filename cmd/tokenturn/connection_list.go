package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func (c *cli) connectionList() *cobra.Command {
	return c.withExamples(verb("list", "List all connections", "",
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
					c.say("There are no connections yet. Create one with: tokenturn connection invite ENV/NAME")
				}
				return c.answer(list, func(w io.Writer) { printConnections(w, list, time.Now(), c.painter()) })
			})
		}),
		example{"List all connections", "tokenturn connection list"},
		example{"Name the connections that are not active",
			`tokenturn --json connection list | jq -r '.[] | select(.status != "active").connection'`})
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

// paintedStatus shows by its color, and in words, whether a person has to do something.
func (a connectionAnswer) paintedStatus(p painter) string {
	text, with := string(a.Status), plain
	switch {
	case a.Status == rotation.NeedsConsent:
		with = red
	case a.Quarantined:
		text, with = text+" (quarantined)", red
	case a.Failure != nil:
		text, with = text+" ("+a.Failure.Class+")", yellow
	case a.Status == rotation.Active:
		with = green
	}
	return p.paint(text, with)
}
