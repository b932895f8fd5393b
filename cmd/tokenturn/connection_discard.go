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
		Short: "End a quarantine by discarding the response",
		Long: `tokenturn does not use the token pair in the quarantined response. After the quiet period
it presents the old refresh token once more; if Procore refuses it, a person must give a
new consent. The command also discards a response or a consent that cannot be decrypted.
If it can be decrypted again, the command leaves it to the next run instead.
Prompts for the name of the connection or environment unless you add --yes.

--environment ends every quarantine of one environment, for example after a proxy or a
firewall has changed all responses.`,
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
				if err := c.confirm(ctx, conn.String(), yes, "The quarantined response of "+conn.String()+
					" cannot be restored. Type the connection's name to discard it"); err != nil {
					return rotation.Report{}, err
				}
				working, finished := c.uninterrupted(ctx, finishingFirst)
				defer finished()
				return r.Discard(working, conn)
			})
		}}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not prompt for the name")
	cmd.Flags().StringVar(&environment, "environment", "", "every quarantined connection of this environment")
	return c.withExamples(cmd,
		example{"Discard the quarantined response of a connection", "tokenturn connection discard sandbox/acme"},
		example{"Discard all quarantined responses of the sandbox",
			"tokenturn connection discard --environment sandbox"})
}

// discardAll discards what is quarantined in one environment.
func (c *cli) discardAll(ctx context.Context, cmd *cobra.Command, in *installation, environment string,
	yes bool) error {
	if err := in.checkEnvironment(ctx, cmd, environment); err != nil {
		return err
	}
	records, err := in.ledger.List(ctx)
	if err != nil {
		return err
	}
	var quarantined []token.Connection
	for _, r := range records {
		if r.Connection.Environment == environment && in.mustBeQuarantined(ctx, r.Connection) == nil {
			quarantined = append(quarantined, r.Connection)
		}
	}
	if len(quarantined) == 0 {
		return exitf(notFound, "%s: %w", environment, rotation.ErrNothingQuarantined)
	}
	question := fmt.Sprintf("The quarantined responses of %d connections of %s cannot be restored. Type the "+
		"environment's name to discard them", len(quarantined), environment)
	if err := c.confirm(ctx, environment, yes, question); err != nil {
		return err
	}
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	working, finished := c.uninterrupted(ctx, finishingFirst)
	defer finished()
	step, end := c.progress("Discarding", len(quarantined))
	report := rotator.DiscardAll(working, quarantined, step)
	end()
	return errors.Join(c.answer(report, func(w io.Writer) { printReports(w, report) }), worst(report))
}
