package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (c *cli) profileUse() *cobra.Command {
	var none bool
	cmd := verbOn(parseProfile, "use NAME", "Choose the profile that commands use without --use",
		`With --none, commands without --stack or --use work on the store of this machine again.`,
		func(_ context.Context, _ *cobra.Command, name string) error { return c.useProfile(name) })
	withName, run := cmd.Args, cmd.RunE
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case none && len(args) > 0:
			return usageError(cmd, errors.New("--none takes no name"))
		case none:
			return nil
		}
		return withName(cmd, args)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if none {
			return c.useProfile("")
		}
		return run(cmd, args)
	}
	cmd.Flags().BoolVar(&none, "none", false, "use no profile")
	return c.withExamples(cmd,
		example{"Choose a profile", "tokenturn profile use acme"},
		example{"Use the store of this machine again", "tokenturn profile use --none"})
}

// useAnswer is what `profile use --json` answers.
type useAnswer struct {
	Profile string `json:"profile"` // empty: none
}

const noneInUse = "No profile is in use now: commands work on the store of this machine unless you choose another one."

func (c *cli) useProfile(name string) error {
	all, err := c.readProfiles()
	if err != nil {
		return err
	}
	text := noneInUse
	if name != "" {
		p, err := all.named(name)
		if err != nil {
			return err
		}
		text = fmt.Sprintf("The profile %s is in use: commands work on the stack %s.", name, p.Stack)
		if c.hasSettings() {
			c.say("This does not count in this shell: TOKENTURN_TABLE and TOKENTURN_SEAL_KEY are set and win.")
		}
	}
	all.Use = name
	if err := all.write(); err != nil {
		return err
	}
	return c.answer(useAnswer{name}, func(w io.Writer) { fmt.Fprintln(w, text) })
}
