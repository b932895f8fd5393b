package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func (c *cli) invitationList() *cobra.Command {
	return c.withExamples(verb("list", "List the invitations that have not expired",
		`States: open; used (it connected); revoked; started_out (it reached the maximum number of
starts); ended (the connection was since connected or disconnected in another way).`,
		func(ctx context.Context, _ *cobra.Command) error {
			return c.with(ctx, func(in *installation) error {
				list, err := in.invitations(ctx)
				if err != nil {
					return err
				}
				if len(list) == 0 {
					c.say("There are no invitations. Create one with: tokenturn connection invite ENV/NAME")
				}
				return c.answer(list, func(w io.Writer) { printInvitations(w, list, time.Now()) })
			})
		}),
		example{"List the invitations", "tokenturn invitation list"},
		example{"Print the ids of those that can still be used",
			`tokenturn --json invitation list | jq -r '.[] | select(.state == "open").id'`})
}

func printInvitations(w io.Writer, list []invitationAnswer, now time.Time) {
	if len(list) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tCONNECTION\tEXPECTED\tSTATE\tSTARTS\tEXPIRES")
	for _, a := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d of %d\t%s\n", a.ID, a.Connection, expected(a.Expected), a.State, a.Starts,
			a.MaxStarts, when(a.ExpiresAt, now))
	}
	t.Flush()
}

// expected says in a table who may give the consent.
func expected(who rotation.Identity) string {
	var parts []string
	if who.Login != "" {
		parts = append(parts, who.Login)
	}
	if who.Company != "" {
		parts = append(parts, "company "+who.Company)
	}
	if who.Repin {
		parts = append(parts, "repin")
	}
	return orDash(strings.Join(parts, ", "))
}
