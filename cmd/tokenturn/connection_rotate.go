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

func (c *cli) connectionRotate() *cobra.Command {
	var all bool
	var environment string
	cmd := &cobra.Command{Use: "rotate {ENV/NAME | --all}", Short: "Replace the pair of a connection, or of all, now, " +
		"due or not",
		Long: `The waiting times of the protocol hold: while another run has the token in hand,
after an answer was lost, and after a failure, this exits with 5.

--all takes every connection that is active or needs a consent, or those of one
--environment. A refresh token that Procore has refused is presented again, because
a server in trouble may refuse one that is good. It exits with 1 if
one of them failed, else with 3 if one needs the consent of a person, else with 5 if
one has to wait.`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return usageError(cmd, errors.New("--all takes no ENV/NAME; name one environment with --environment"))
			case !all && len(args) != 1:
				return usageError(cmd, fmt.Errorf("usage: %s", cmd.UseLine()))
			case !all && environment != "":
				return usageError(cmd, errors.New("--environment goes with --all"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if all {
				return c.with(ctx, func(in *installation) error { return c.rotateAll(ctx, cmd, in, environment) })
			}
			conn, err := token.ParseConnection(args[0])
			if err != nil {
				return usageError(cmd, err)
			}
			return c.report(ctx, conn, func(_ *installation, r *rotation.Rotator) (rotation.Report, error) {
				working, finished := c.uninterrupted(ctx, finishingFirst)
				defer finished()
				return r.Rotate(working, conn)
			})
		}}
	cmd.Flags().BoolVar(&all, "all", false, "every connection that is active or needs a consent")
	cmd.Flags().StringVar(&environment, "environment", "", "with --all: only those of this environment")
	return c.withExamples(cmd,
		example{"Rotate one connection", "tokenturn connection rotate sandbox/acme"},
		example{"Rotate all connections of production", "tokenturn connection rotate --all --environment production"},
		example{"Count the outcomes", "tokenturn --json connection rotate --all | jq .outcomes"})
}

func (c *cli) rotateAll(ctx context.Context, cmd *cobra.Command, in *installation, environment string) error {
	if environment != "" {
		if _, err := token.ParseEnvironment(environment); err != nil {
			return usageError(cmd, err)
		}
	}
	records, err := in.ledger.List(ctx)
	if err != nil {
		return err
	}
	var active []token.Connection
	for _, r := range records {
		wanted := r.Status == rotation.Active || r.Status == rotation.NeedsConsent
		if wanted && (environment == "" || r.Connection.Environment == environment) {
			active = append(active, r.Connection)
		}
	}
	if len(active) == 0 {
		c.say("There is no connection to rotate; see: tokenturn connection list")
	}
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	defer c.deferSignals(finishingFirst)()
	step, end := c.progress("Rotating", len(active))
	report := rotator.RotateAll(ctx, active, func(rotation.ConnectionReport) { step() })
	end()
	return errors.Join(c.answer(report, func(w io.Writer) { printReports(w, report) }), worst(report))
}
