package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) appShow() *cobra.Command {
	return c.withExamples(onEnvironment(token.ParseEnvironment, "show ENV", "Show the app credentials of an environment, "+
		"without the client secret",
		`Use the fingerprint to compare two client secrets without disclosing them:
printf %s "$SECRET" | sha256sum | cut -c1-32`,
		func(ctx context.Context, _ *cobra.Command, environment string) error {
			return c.with(ctx, func(in *installation) error {
				credentials, err := storedCredentials(ctx, in, environment)
				if errors.Is(err, rotation.ErrNoApplication) {
					return in.withoutApplication(ctx, environment)
				}
				if err != nil {
					return fmt.Errorf("reading the app credentials of %s: %w", environment, err)
				}
				a := newAppAnswer(environment, credentials)
				if err := c.answer(a, a.print); err != nil {
					return err
				}
				if _, err := credentials.Application(environment); err != nil {
					return fmt.Errorf("tokenturn cannot use these app credentials; store correct ones with: tokenturn app set %s\n%w",
						environment, err)
				}
				return nil
			})
		}),
		example{"Show the app credentials of the sandbox", "tokenturn app show sandbox"},
		example{"Show the app credentials of production as JSON", "tokenturn --json app show production"})
}
