package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// noun groups verbs. By itself it says which ones there are.
func noun(use, short, long, example string, verbs ...*cobra.Command) *cobra.Command {
	if example == "" { // the first one of each verb
		var lines []string
		for _, verb := range verbs {
			line, _, _ := strings.Cut(verb.Example, "\n")
			lines = append(lines, line)
		}
		example = strings.Join(lines, "\n")
	}
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Example: example}
	cmd.AddCommand(verbs...)
	wantVerb(cmd)
	return cmd
}

// wantVerb makes a command that does nothing by itself say which verbs it has.
func wantVerb(cmd *cobra.Command) {
	// Without Args cobra would take an unknown verb of anything but the root for a call for help.
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError(cmd, fmt.Errorf("%q is no command of %s", args[0], cmd.CommandPath()))
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

// verb runs do without arguments.
func verb(use, short, long, example string, do func(ctx context.Context, cmd *cobra.Command) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, Example: example,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(cmd, fmt.Errorf("%s takes no argument", cmd.CommandPath()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return do(cmd.Context(), cmd) }}
}

// verbOn runs do on the one thing that its argument names and parse reads.
func verbOn[T any](parse func(string) (T, error), use, short, long, example string,
	do func(ctx context.Context, cmd *cobra.Command, on T) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, Example: example,
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

// onEnvironment and onConnection are what verbs are for.
var (
	onEnvironment = verbOn[string]
	onConnection  = verbOn[token.Connection]
)
