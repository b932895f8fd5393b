package main

import (
	"context"
	"errors"
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
			return c.report(ctx, conn, func(r *rotation.Rotator) (rotation.Report, error) {
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
	cmd := onConnection(token.ParseConnection, "discard ENV/NAME", "End a quarantine by giving the held answer up",
		`The pair in the held answer is not used. The refresh token that had brought it is
presented once more after the quiet period; if Procore refuses that, somebody
must consent again. An answer that could not be opened, and now can be, is left to
the next run instead. Asks for the connection's name unless --yes is given.`,
		`  tokenturn connection discard sandbox/acme`,
		func(ctx context.Context, _ *cobra.Command, conn token.Connection) error {
			return c.report(ctx, conn, func(r *rotation.Rotator) (rotation.Report, error) {
				if err := c.confirmName(ctx, conn, yes, "The held answer of "+conn.String()+" is lost for good. Type its name to discard it"); err != nil {
					return rotation.Report{}, err
				}
				working, finished := c.seeThrough(ctx, pairAtStake)
				defer finished()
				return r.Discard(working, conn)
			})
		})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// report has the engine do something to a connection and answers with what
// came of it.
func (c *cli) report(ctx context.Context, conn token.Connection, do func(*rotation.Rotator) (rotation.Report, error)) error {
	return c.with(ctx, func(in *installation) error {
		if _, _, err := in.load(ctx, conn); err != nil {
			return err
		}
		rotator, err := in.rotator()
		if err != nil {
			return err
		}
		report, err := do(rotator)
		if errors.Is(err, rotation.ErrNothingHeld) {
			return exitf(notFound, "%w", err)
		}
		if err != nil {
			return err
		}
		r := report.Connections[0]
		return errors.Join(c.answer(r, func(w io.Writer) { printReport(w, r) }), outcomeError(r))
	})
}
