package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionRelease() *cobra.Command {
	return c.withExamples(onConnection(token.ParseConnection, "release ENV/NAME", "End a quarantine by naming the right refresh token",
		`An answer of Procore that names several refresh tokens is held, and nothing is presented
until a person says which one is right: Procore's support can tell, or the other
holder of the pair. Asks for the token without showing it; it must occur in the held answer.`,
		func(ctx context.Context, _ *cobra.Command, conn token.Connection) error {
			return c.report(ctx, conn, func(in *installation, r *rotation.Rotator) (rotation.Report, error) {
				if err := in.mustBeQuarantined(ctx, conn); err != nil {
					return rotation.Report{}, err
				}
				refresh, err := c.askSecret(ctx, "The right refresh token")
				if err != nil {
					return rotation.Report{}, exitf(usage, "%w; nothing was changed", err)
				}
				working, finished := c.uninterrupted(ctx, finishingFirst)
				defer finished()
				return r.Release(working, conn, refresh)
			})
		}),
		example{"Enter the correct refresh token at a prompt", "tokenturn connection release sandbox/acme"})
}

// mustBeQuarantined is an error if there is nothing to release or discard.
func (in *installation) mustBeQuarantined(ctx context.Context, conn token.Connection) error {
	rec, responses, err := in.load(ctx, conn)
	if err == nil && !rotation.HasQuarantined(rec, responses) {
		err = exitf(notFound, "%s: %w", conn, rotation.ErrNothingQuarantined)
	}
	return err
}
