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
	cmd := &cobra.Command{Use: "rotate {ENV/NAME | --all}", Short: "Rotate one connection or all connections now, " +
		"whether due or not",
		Long: `Replaces the token pair. It does not wait for the next try after an earlier failure, and
presents a refresh token again that Procore has refused, because a server with a problem
may refuse a valid one. It still exits with 5, and presents nothing, while another run's
attempt is live, during the quiet period after a lost response, while Procore asks to
wait, and when the secret has reached its daily limit of versions.

Exits with 1 if the rotation failed or a response is quarantined, 3 if the connection
needs a person's consent, 4 if there is no such connection, and 5 if the rotation must
wait, if Procore could not be reached, or if the response was lost.

--all rotates every connection that is active or needs consent, or those of one
--environment. It exits with 1 if any rotation failed, otherwise with 3 if a connection
needs consent, otherwise with 5 if one must wait.`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return usageError(cmd, errors.New("--all takes no ENV/NAME; name one environment with --environment"))
			case !all && len(args) != 1:
				return usageError(cmd, fmt.Errorf("usage: %s", cmd.UseLine()))
			case !all && environment != "":
				return usageError(cmd, errors.New("--environment requires --all"))
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
	cmd.Flags().BoolVar(&all, "all", false, "rotate every connection that is active or needs consent")
	cmd.Flags().StringVar(&environment, "environment", "", "with --all: only connections of this environment")
	return c.withExamples(cmd,
		example{"Rotate one connection", "tokenturn connection rotate sandbox/acme"},
		example{"Rotate all connections of production", "tokenturn connection rotate --all --environment production"},
		example{"Count the outcomes", "tokenturn --json connection rotate --all | jq .outcomes"})
}

func (c *cli) rotateAll(ctx context.Context, cmd *cobra.Command, in *installation, environment string) error {
	if environment != "" {
		if err := in.checkEnvironment(ctx, cmd, environment); err != nil {
			return err
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
		c.say("There are no connections to rotate. List all connections with: tokenturn connection list")
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
