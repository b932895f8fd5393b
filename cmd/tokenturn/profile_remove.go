package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (c *cli) profileRemove() *cobra.Command {
	return c.withExamples(verbOn(parseProfile, "remove NAME", "Remove a profile",
		`Nothing changes in AWS. If the profile was in use, no profile is in use afterwards.`,
		func(_ context.Context, _ *cobra.Command, name string) error {
			all, err := c.readProfiles()
			if err != nil {
				return err
			}
			if _, err := all.named(name); err != nil {
				return err
			}
			removed := all.answer(name)
			delete(all.Profiles, name)
			if removed.InUse {
				all.Use = ""
			}
			if err := all.write(); err != nil {
				return err
			}
			return c.answer(removed, func(w io.Writer) {
				fmt.Fprintf(w, "Removed. The stack %s is unchanged.\n", removed.Stack)
				if removed.InUse {
					fmt.Fprintln(w, noneInUse)
				}
			})
		}),
		example{"Remove a profile", "tokenturn profile remove acme"})
}
