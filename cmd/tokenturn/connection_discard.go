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

func (c *cli) connectionDiscard() *cobra.Command {
	var yes bool
	var environment string
	cmd := &cobra.Command{Use: "discard {ENV/NAME | --environment ENV}",
		Short: "End a quarantine by giving the held answer up",
		Long: `The pair in the held answer is not used. The refresh token that had brought it is
presented once more after the quiet period; if Procore refuses that, somebody
must consent again. A consent that cannot be opened is given up in the same way. An
answer that could not be opened, and now can be, is left to the next run instead.
Asks for the connection's name, or the environment's, unless --yes is given.

--environment ends every quarantine of one environment, as after a proxy or a
firewall has changed all answers.`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case environment != "" && len(args) > 0:
				return usageError(cmd, errors.New("--environment takes no ENV/NAME"))
			case environment == "" && len(args) != 1:
				return usageError(cmd, fmt.Errorf("usage: %s", cmd.UseLine()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if environment != "" {
				return c.with(ctx, func(in *installation) error { return c.discardAll(ctx, cmd, in, environment, yes) })
			}
			conn, err := token.ParseConnection(args[0])
			if err != nil {
				return usageError(cmd, err)
			}
			return c.report(ctx, conn, func(in *installation, r *rotation.Rotator) (rotation.Report, error) {
				if err := in.mustBeQuarantined(ctx, conn); err != nil {
					return rotation.Report{}, err
				}
				if err := c.confirm(ctx, conn.String(), yes, "The held answer of "+conn.String()+" is lost for good. "+
					"Type its name to discard it"); err != nil {
					return rotation.Report{}, err
				}
				working, finished := c.uninterrupted(ctx, finishingFirst)
				defer finished()
				return r.Discard(working, conn)
			})
		}}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().StringVar(&environment, "environment", "", "every quarantined connection of this environment")
	return c.withExamples(cmd,
		example{"Discard the quarantined response of a connection", "tokenturn connection discard sandbox/acme"},
		example{"Discard all quarantined responses of the sandbox",
			"tokenturn connection discard --environment sandbox"})
}

// discardAll gives up what is held in one environment.
func (c *cli) discardAll(ctx context.Context, cmd *cobra.Command, in *installation, environment string,
	yes bool) error {
	if _, err := token.ParseEnvironment(environment); err != nil {
		return usageError(cmd, err)
	}
	records, err := in.ledger.List(ctx)
	if err != nil {
		return err
	}
	var held []token.Connection
	for _, r := range records {
		if r.Connection.Environment == environment && in.mustBeQuarantined(ctx, r.Connection) == nil {
			held = append(held, r.Connection)
		}
	}
	if len(held) == 0 {
		return exitf(notFound, "%s: %w", environment, rotation.ErrNothingQuarantined)
	}
	question := fmt.Sprintf("The held answers of %d connections of %s are lost for good. Type the environment's name "+
		"to discard them", len(held), environment)
	if err := c.confirm(ctx, environment, yes, question); err != nil {
		return err
	}
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	working, finished := c.uninterrupted(ctx, finishingFirst)
	defer finished()
	step, end := c.progress("Discarding", len(held))
	report := rotator.DiscardAll(working, held, step)
	end()
	return errors.Join(c.answer(report, func(w io.Writer) { printReports(w, report) }), worst(report))
}
