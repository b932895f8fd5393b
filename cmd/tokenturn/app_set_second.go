package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// addSecret stores a second client secret beside the first one.
func (c *cli) addSecret(ctx context.Context, cmd *cobra.Command, in *installation, environment string,
	flags appSetFlags) error {
	credentials, err := storedCredentials(ctx, in, environment)
	if errors.Is(err, rotation.ErrNoApplication) {
		return in.withoutApplication(ctx, environment)
	}
	if err != nil {
		return fmt.Errorf("reading the app credentials of %s: %w; nothing was stored", environment, err)
	}
	if credentials.SecondSecret, err = c.secondSecret(ctx, cmd, flags.fromStdin); err != nil {
		return err
	}
	app, err := credentials.Application(environment)
	if err != nil {
		return exitf(usage, "nothing was stored: the credentials for %s are not valid:\n%w", environment, err)
	}
	second := credentials
	second.ClientSecret, second.SecondSecret = credentials.SecondSecret, token.Secret{}
	if err := in.checkOtherEnvironments(ctx, environment, second); err != nil {
		return err
	}
	a := appSetAnswer{appAnswer: newAppAnswer(environment, credentials), Check: "skipped", Affected: []affected{}}
	if !flags.noCheck {
		app.ClientSecret = app.SecondSecret
		if err := in.issuer.CheckCredentials(ctx, app); err != nil {
			return secondError(err, appSetAnswer{appAnswer: newAppAnswer(environment, second)})
		}
		a.Check = "accepted"
	}
	if flags.dryRun {
		c.say("Nothing was stored. To store the second client secret, leave out --dry-run.")
		return c.answer(a, a.print)
	}
	if err := in.storeCredentials(ctx, environment, credentials); err != nil {
		return err
	}
	a.Stored = true
	c.say("Stored. tokenturn uses the second client secret of %s once the server refuses the first.", environment)
	a.WaitsEnded = c.endWaits(ctx, in, environment)
	c.sayWaitsEnded(a)
	return c.answer(a, a.print)
}

// secondError is checkError for a second client secret, which the server may accept later.
func secondError(err error, a appSetAnswer) error {
	if errors.Is(err, rotation.ErrCredentialsRefused) {
		return fmt.Errorf("%w. If the server is to accept this secret later, store it without the check: add --no-check",
			checkError(err, a))
	}
	return checkError(err, a)
}

// secondSecret reads the second client secret.
func (c *cli) secondSecret(ctx context.Context, cmd *cobra.Command, fromStdin bool) (secret token.Secret, err error) {
	if !fromStdin {
		if !isTerminal(c.stdin) {
			return secret, usageError(cmd, errors.New("standard input is not a terminal; "+
				`pass {"client_secret":"..."} with --stdin`))
		}
		secret, err = c.askSecret(ctx, "Second client secret (not shown)")
		return secret, unanswered(err, "nothing was stored")
	}
	var text []byte
	err = c.readSecrets(ctx, "the client secret as JSON", func(input io.Reader) (err error) {
		text, err = io.ReadAll(io.LimitReader(input, maxInput))
		return err
	})
	if err != nil {
		return secret, fmt.Errorf("reading standard input: %w; nothing was stored", err)
	}
	var answer struct {
		ClientSecret token.Secret `json:"client_secret"`
	}
	if json.Unmarshal(text, &answer) != nil || !knownFields(text, answer) || answer.ClientSecret.IsZero() {
		return secret, exitf(usage, `standard input is not {"client_secret":"..."}; nothing was stored`)
	}
	return answer.ClientSecret, nil
}
