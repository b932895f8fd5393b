package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionRelease() *cobra.Command {
	return c.withExamples(onConnection(token.ParseConnection, "release ENV/NAME",
		"End a quarantine by naming the correct refresh token",
		`If a response of Procore names several refresh tokens, tokenturn quarantines it and
presents nothing until a person says which one is correct. Procore's support, or the other
holder of the token pair, can tell. The command prompts for the token without showing it.
The token must occur in the quarantined response.`,
		func(ctx context.Context, _ *cobra.Command, conn token.Connection) error {
			return c.report(ctx, conn, func(in *installation, r *rotation.Rotator) (rotation.Report, error) {
				if err := in.mustBeQuarantined(ctx, conn); err != nil {
					return rotation.Report{}, err
				}
				refresh, err := c.askSecret(ctx, "Correct refresh token (not shown)")
				if err != nil {
					return rotation.Report{}, exitf(usage, "%w; nothing was changed", err)
				}
				working, finished := c.uninterrupted(ctx, finishingFirst)
				defer finished()
				return r.Release(working, conn, refresh)
			})
		}),
		example{"Release a quarantined response, with the token entered at a prompt",
			"tokenturn connection release sandbox/acme"})
}

// mustBeQuarantined is an error if there is nothing to release or discard.
func (in *installation) mustBeQuarantined(ctx context.Context, conn token.Connection) error {
	rec, responses, err := in.load(ctx, conn)
	if err == nil && !rotation.HasQuarantined(rec, responses) {
		err = exitf(notFound, "%s: %w", conn, rotation.ErrNothingQuarantined)
	}
	return err
}
