package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) appCommand() *cobra.Command {
	return noun("app", "Credentials of the app that the Developer Portal registered", "", "", c.appSet(), c.appShow())
}

func (c *cli) appSet() *cobra.Command {
	var fromStdin bool
	cmd := onEnvironment(token.ParseEnvironment, "set ENV", "Store the app credentials of an environment",
		`Asks for client id, client secret and redirect URI, and stores them in place of
earlier ones. ENV is production, sandbox, monthly-sandbox, federal, or any other
name, for which the login and API URLs are asked too.

The secret is never taken from an argument or a variable, where other users of the
machine could see it. Scripts give JSON on standard input with --stdin:
{"client_id","client_secret","redirect_uri","login_url","api_url"}, of which the
URLs may be left out where their usual values are right.`,
		`  tokenturn app set sandbox
  tokenturn app set sandbox --stdin < credentials.json
  tokenturn --store aws app set production`,
		func(ctx context.Context, cmd *cobra.Command, environment string) error {
			return c.withNew(ctx, func(in *installation) error {
				return c.setApp(ctx, cmd, in, environment, fromStdin)
			})
		})
	cmd.Flags().BoolVar(&fromStdin, "stdin", false, "read the credentials as JSON from standard input")
	return cmd
}

func (c *cli) setApp(ctx context.Context, cmd *cobra.Command, in *installation, environment string, fromStdin bool) error {
	redirect := ""
	if in.publicURL != "" {
		redirect = callbackURL(in.publicURL, environment)
	}
	read := c.readCredentials
	if !fromStdin {
		if !isTerminal(c.stdin) {
			return usageError(cmd, errors.New("standard input is no terminal to ask at; give JSON with --stdin"))
		}
		read = c.askCredentials
	}
	credentials, err := read(ctx, in, environment, redirect)
	if err != nil {
		return err
	}
	if _, err := credentials.Application(environment); err != nil {
		return exitf(usage, "nothing was stored, because of the credentials for %s:\n%w", environment, err)
	}
	value, err := credentials.Encode()
	if err != nil {
		return err
	}
	if err := in.apps.Set(ctx, environment, value); err != nil {
		return err
	}
	c.say("Stored. The app in the Developer Portal must have exactly this redirect URI: %s", credentials.RedirectURI)
	return c.answerApp(environment, credentials)
}

// callbackURL is the redirect URI of a front door.
func callbackURL(publicURL, environment string) string { return publicURL + "/callback/" + environment }

// readCredentials takes the stored form from standard input.
func (c *cli) readCredentials(_ context.Context, _ *installation, _, redirect string) (procore.Credentials, error) {
	text, err := io.ReadAll(io.LimitReader(c.stdin, maxInput))
	if err != nil {
		return procore.Credentials{}, fmt.Errorf("reading standard input: %w", err)
	}
	credentials, err := procore.ParseCredentials(token.NewSecret(string(text)))
	if err != nil {
		return procore.Credentials{}, exitf(usage, "standard input: %w", err)
	}
	if credentials.RedirectURI == "" {
		credentials.RedirectURI = redirect
	}
	return credentials, nil
}

// askCredentials asks a person. What is stored already is offered again, except
// for the secret.
func (c *cli) askCredentials(ctx context.Context, in *installation, environment, redirect string) (procore.Credentials, error) {
	before, err := storedCredentials(ctx, in, environment)
	if err != nil && !errors.Is(err, rotation.ErrNoApplication) {
		return procore.Credentials{}, err
	}
	if before.RedirectURI != "" {
		redirect = before.RedirectURI
	}
	var credentials procore.Credentials
	if credentials.ClientID, err = c.ask(ctx, "Client ID", before.ClientID); err != nil {
		return credentials, err
	}
	if credentials.ClientSecret, err = c.askSecret(ctx, "Client secret (not shown)"); err != nil {
		return credentials, err
	}
	if credentials.RedirectURI, err = c.ask(ctx, "Redirect URI", redirect); err != nil {
		return credentials, err
	}
	if _, own := procoreEnvironment(environment); own && before.LoginURL == "" && before.APIURL == "" {
		return credentials, nil
	}
	if credentials.LoginURL, err = c.ask(ctx, "Login URL, such as https://login.example.com", before.LoginURL); err != nil {
		return credentials, err
	}
	credentials.APIURL, err = c.ask(ctx, "API URL, such as https://api.example.com", before.APIURL)
	return credentials, err
}

func storedCredentials(ctx context.Context, in *installation, environment string) (procore.Credentials, error) {
	value, err := in.apps.Value(ctx, environment)
	if err != nil {
		return procore.Credentials{}, err
	}
	return procore.ParseCredentials(value)
}

func procoreEnvironment(name string) (procore.Environment, bool) {
	all := procore.Environments()
	i := slices.IndexFunc(all, func(e procore.Environment) bool { return e.Name == name })
	if i < 0 {
		return procore.Environment{}, false
	}
	return all[i], true
}

func (c *cli) appShow() *cobra.Command {
	return onEnvironment(token.ParseEnvironment, "show ENV", "Show the app credentials of an environment, without the secret",
		`The fingerprint tells whether two secrets are the same without disclosing them:
printf %s "$SECRET" | sha256sum | cut -c1-32`,
		`  tokenturn app show sandbox
  tokenturn --json app show production`,
		func(ctx context.Context, _ *cobra.Command, environment string) error {
			return c.with(ctx, func(in *installation) error {
				credentials, err := storedCredentials(ctx, in, environment)
				if errors.Is(err, rotation.ErrNoApplication) {
					return errNoApplication(environment)
				}
				if err != nil {
					return fmt.Errorf("reading the app credentials of %s: %w", environment, err)
				}
				if err := c.answerApp(environment, credentials); err != nil {
					return err
				}
				if _, err := credentials.Application(environment); err != nil {
					return fmt.Errorf("these app credentials cannot be used; store them anew with: tokenturn app set %s\n%w", environment, err)
				}
				return nil
			})
		})
}

// appAnswer is what is shown of app credentials.
type appAnswer struct {
	Environment string            `json:"environment"`
	ClientID    string            `json:"client_id"`
	Secret      token.Fingerprint `json:"client_secret_fingerprint"`
	RedirectURI string            `json:"redirect_uri"`
	LoginURL    string            `json:"login_url"`
	APIURL      string            `json:"api_url"`
	Overrides   []string          `json:"overrides"` // of login_url and api_url, those that replace Procore's own
}

func (c *cli) answerApp(environment string, credentials procore.Credentials) error {
	usual, _ := procoreEnvironment(environment)
	a := appAnswer{Environment: environment, ClientID: credentials.ClientID, Secret: credentials.ClientSecret.Fingerprint(),
		RedirectURI: credentials.RedirectURI, LoginURL: usual.LoginURL, APIURL: usual.APIURL, Overrides: []string{}}
	override := func(name string, value *string, with string) (note string) {
		with = strings.TrimRight(with, "/")
		if with == "" || with == *value {
			return ""
		}
		if *value != "" {
			a.Overrides = append(a.Overrides, name)
			note = "  (in place of " + *value + ")"
		}
		*value = with
		return note
	}
	loginNote := override("login_url", &a.LoginURL, credentials.LoginURL)
	apiNote := override("api_url", &a.APIURL, credentials.APIURL)
	return c.answer(a, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "environment\t%s\n", a.Environment)
		fmt.Fprintf(t, "client id\t%s\n", a.ClientID)
		fmt.Fprintf(t, "client secret\tfingerprint %s\n", a.Secret)
		fmt.Fprintf(t, "redirect URI\t%s\n", a.RedirectURI)
		fmt.Fprintf(t, "login URL\t%s%s\n", a.LoginURL, loginNote)
		fmt.Fprintf(t, "API URL\t%s%s\n", a.APIURL, apiNote)
		t.Flush()
	})
}
