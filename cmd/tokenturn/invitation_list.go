package main

import (
	"context"
	"fmt"
	"io"
	"strings"
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
	t := table{head: []string{"ID", "CONNECTION", "EXPECTED", "STATE", "STARTS", "EXPIRES"}}
	for _, a := range list {
		t.row(a.ID, a.Connection.String(), expected(a.Expected), a.State, fmt.Sprintf("%d of %d", a.Starts, a.MaxStarts),
			when(a.ExpiresAt, now))
	}
	t.print(w)
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
