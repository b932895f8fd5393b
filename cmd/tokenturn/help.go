package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// example is one way to use a command. A line break in the command is where help breaks a
// long line, with the backslash that the shell needs.
type example struct{ what, command string }

func (e example) String() string {
	return "  # " + e.what + "\n  " + strings.ReplaceAll(e.command, "\n", " \\\n      ")
}

// withExamples gives cmd its examples: for its help, its manual page, and the first one for
// the help of its group.
func (c *cli) withExamples(cmd *cobra.Command, examples ...example) *cobra.Command {
	if c.examples == nil {
		c.examples = map[*cobra.Command][]example{}
	}
	c.examples[cmd] = examples
	var lines []string
	for _, e := range examples {
		lines = append(lines, e.String())
	}
	cmd.Example = strings.Join(lines, "\n")
	return cmd
}

// noun groups verbs. Without a verb it lists them.
func (c *cli) noun(use, short, long string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long}
	cmd.AddCommand(verbs...)
	wantVerb(cmd)
	var first []example
	for _, verb := range verbs {
		first = append(first, c.examples[verb][:min(1, len(c.examples[verb]))]...)
	}
	return c.withExamples(cmd, first...)
}

// wantVerb makes a command without an action of its own report its verbs.
func wantVerb(cmd *cobra.Command) {
	// Without Args cobra answers an unknown verb of any command but the root with help.
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError(cmd, fmt.Errorf("%s has no command %q%s", cmd.CommandPath(), args[0],
				suggestCommand(cmd, args[0])))
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var names []string
		for _, verb := range cmd.Commands() {
			if verb.IsAvailableCommand() {
				names = append(names, verb.Name())
			}
		}
		return usageError(cmd, fmt.Errorf("%s needs one of: %s", cmd.CommandPath(), strings.Join(names, ", ")))
	}
}

// verb is a command without arguments that runs do.
func verb(use, short, long string, do func(ctx context.Context, cmd *cobra.Command) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(cmd, fmt.Errorf("%s takes no arguments", cmd.CommandPath()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return do(cmd.Context(), cmd) }}
}

// verbOn is a command with one argument, which parse reads and do works on.
func verbOn[T any](parse func(string) (T, error), use, short, long string,
	do func(ctx context.Context, cmd *cobra.Command, on T) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, fmt.Errorf("usage: %s", cmd.UseLine()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			on, err := parse(args[0])
			if err != nil {
				return usageError(cmd, err)
			}
			return do(cmd.Context(), cmd, on)
		}}
}

// onEnvironment and onConnection are the commands on an environment or a connection.
var (
	onEnvironment = verbOn[string]
	onConnection  = verbOn[token.Connection]
)
