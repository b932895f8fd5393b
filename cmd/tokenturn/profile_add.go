package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (c *cli) profileAdd() *cobra.Command {
	return c.withExamples(verbOn(parseProfile, "add NAME", "Add a profile for an installation in AWS",
		`Takes the stack from --stack, and the region and the AWS profile from --region and --profile.
What you leave out is found as the AWS command finds it. The first profile is in use at once.
Nothing is checked in AWS; tokenturn --use NAME config show does that.`,
		func(_ context.Context, cmd *cobra.Command, name string) error {
			switch {
			case c.stack == "":
				return usageError(cmd, errors.New("name the CloudFormation stack with --stack"))
			case cmd.Flags().Changed("use"):
				return usageError(cmd, errors.New("--use names an existing profile and cannot be used here"))
			}
			all, err := c.readProfiles()
			if err != nil {
				return err
			}
			if _, there := all.Profiles[name]; there {
				return exitf(usage, "there is a profile %s already; remove it first with: tokenturn profile remove %[1]s", name)
			}
			if len(all.Profiles) == 0 {
				all.Use = name
			}
			all.Profiles[name] = profile{c.stack, c.region, c.awsProfile}
			if err := all.write(); err != nil {
				return err
			}
			return c.answer(all.answer(name), func(w io.Writer) {
				fmt.Fprintf(w, "Added. Check it with: tokenturn --use %s config show\n", name)
				if all.Use == name {
					fmt.Fprintln(w, "It is in use: commands work on this installation unless you choose another one.")
				} else {
					fmt.Fprintf(w, "Use it with --use %s, or for all commands with: tokenturn profile use %[1]s\n", name)
				}
			})
		}),
		example{"Add a profile", "tokenturn profile add acme --stack tokenturn-production --region us-east-1"},
		example{"Add one with credentials of its own",
			"tokenturn profile add acme-sandbox --stack tokenturn-sandbox\n--region us-east-1 --profile acme-sandbox-admin"})
}
