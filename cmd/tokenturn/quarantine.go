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

func (c *cli) connectionRelease() *cobra.Command {
	return onConnection(token.ParseConnection, "release ENV/NAME", "End a quarantine by naming the right refresh token",
		`An answer of Procore that names several refresh tokens is held, and nothing is presented
until a person says which one is right: Procore's support can tell, or the other
holder of the pair. Asks for the token without showing it; it must occur in the held answer.`,
		`  tokenturn connection release sandbox/acme`,
		func(ctx context.Context, _ *cobra.Command, conn token.Connection) error {
			return c.report(ctx, conn, func(in *installation, r *rotation.Rotator) (rotation.Report, error) {
				if err := in.mustBeQuarantined(ctx, conn); err != nil {
					return rotation.Report{}, err
				}
				refresh, err := c.askSecret(ctx, "The right refresh token")
				if err != nil {
					return rotation.Report{}, exitf(usage, "%w; nothing was changed", err)
				}
				working, finished := c.seeThrough(ctx, pairAtStake)
				defer finished()
				return r.Release(working, conn, refresh)
			})
		})
}

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
		Example: `  tokenturn connection discard sandbox/acme
  tokenturn connection discard --environment sandbox`,
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
				working, finished := c.seeThrough(ctx, pairAtStake)
				defer finished()
				return r.Discard(working, conn)
			})
		}}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().StringVar(&environment, "environment", "", "every quarantined connection of this environment")
	return cmd
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
	working, finished := c.seeThrough(ctx, pairAtStake)
	defer finished()
	step, end := c.progress("Discarding", len(held))
	report := rotator.DiscardAll(working, held, step)
	end()
	return errors.Join(c.answer(report, func(w io.Writer) { printReports(w, report) }), worst(report))
}

// mustBeQuarantined is an error if there is nothing to release or discard.
func (in *installation) mustBeQuarantined(ctx context.Context, conn token.Connection) error {
	rec, responses, err := in.load(ctx, conn)
	if err == nil && !rotation.HasQuarantined(rec, responses) {
		err = exitf(notFound, "%s: %w", conn, rotation.ErrNothingQuarantined)
	}
	return err
}

// report has the engine do something to a connection and answers with what
// came of it.
func (c *cli) report(ctx context.Context, conn token.Connection, do func(*installation,
	*rotation.Rotator) (rotation.Report, error)) error {
	return c.with(ctx, func(in *installation) error {
		if _, _, err := in.load(ctx, conn); err != nil {
			return err
		}
		rotator, err := in.rotator()
		if err != nil {
			return err
		}
		report, err := do(in, rotator)
		if errors.Is(err, rotation.ErrNothingQuarantined) {
			return exitf(notFound, "%w", err)
		}
		if err != nil {
			return err
		}
		r := report.Connections[0]
		return errors.Join(c.answer(r, func(w io.Writer) { printReport(w, r) }), outcomeError(r))
	})
}
