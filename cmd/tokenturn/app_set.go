package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// appSetFlags say how `app set` goes about it.
type appSetFlags struct{ fromStdin, noCheck, dryRun bool }

func (c *cli) appSet() *cobra.Command {
	var flags appSetFlags
	cmd := onEnvironment(token.ParseEnvironment, "set ENV", "Store the app credentials of an environment",
		`Asks for client id, client secret and redirect URI, and stores them in place of
earlier ones. ENV is production, sandbox, monthly-sandbox, federal, or any other
name, for which the login and API URLs are asked too.

The login host is asked whether it accepts client id and secret, by exchanging a code
that was made up; nothing is stored if it does not. --no-check stores them unasked.

The secret is never taken from an argument or a variable, where other users of the
machine could see it. Scripts give JSON on standard input with --stdin:
{"client_id","client_secret","redirect_uri","login_url","api_url"}, of which the
URLs may be left out where their usual values are right.

After a secret was reset in the Developer Portal, run this at once: the former one is
worth nothing from that moment, and Procore may revoke every token made with it.
--dry-run stores nothing and says which connections may have to consent again.`,
		func(ctx context.Context, cmd *cobra.Command, environment string) error {
			open := c.withNew
			if flags.dryRun {
				open = c.with
			}
			return open(ctx, func(in *installation) error { return c.setApp(ctx, cmd, in, environment, flags) })
		})
	cmd.Flags().BoolVar(&flags.fromStdin, "stdin", false, "read the credentials as JSON from standard input")
	cmd.Flags().BoolVar(&flags.noCheck, "no-check", false, "do not ask the login host whether it accepts them")
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "store nothing; say what storing them would mean")
	return c.withExamples(cmd,
		example{"Enter the credentials of the developer sandbox", "tokenturn app set sandbox"},
		example{"See which connections other credentials would affect", "tokenturn app set sandbox --dry-run"},
		example{"Read the credentials from a file", "tokenturn app set sandbox --stdin < credentials.json"},
		example{"Store the production credentials in AWS", "tokenturn --store aws app set production"})
}

// appSetAnswer is what `app set --json` answers.
type appSetAnswer struct {
	appAnswer
	Check  string `json:"check"` // accepted by the login host, or skipped
	Stored bool   `json:"stored"`
	// WaitsEnded is how many connections had to wait because of the configuration, and are
	// tried again now.
	WaitsEnded int `json:"waits_ended"`
	// Affected are the connections whose tokens may end with the replaced credentials.
	Affected []affected `json:"affected"`
}

func (c *cli) setApp(ctx context.Context, cmd *cobra.Command, in *installation, environment string,
	flags appSetFlags) error {
	credentials, before, err := c.newCredentials(ctx, cmd, in, environment, flags.fromStdin)
	if err != nil {
		return err
	}
	app, err := credentials.Application(environment)
	if err != nil {
		return exitf(usage, "nothing was stored, because of the credentials for %s:\n%w", environment, err)
	}
	if err := in.checkOtherEnvironments(ctx, environment, credentials); err != nil {
		return err
	}
	a := appSetAnswer{appAnswer: newAppAnswer(environment, credentials), Check: "skipped", Affected: []affected{}}
	if !flags.noCheck {
		if err := in.issuer.CheckCredentials(ctx, app); err != nil {
			return checkError(err, a)
		}
		a.Check = "accepted"
	}
	records, err := in.ledger.List(ctx)
	if err != nil {
		return err
	}
	a.Affected = append(a.Affected, affectedBy(credentials, before, environment, records)...)
	if !flags.dryRun {
		if err := in.storeCredentials(ctx, environment, credentials); err != nil {
			return err
		}
		a.Stored = true
		a.WaitsEnded = c.endWaits(ctx, in, environment)
	}
	c.sayAfterSet(ctx, in, a)
	return c.answer(a, a.print)
}

// endWaits makes connections that wait because of former credentials due. Should it
// fail, they still find out by themselves that the credentials are others now.
func (c *cli) endWaits(ctx context.Context, in *installation, environment string) (ended int) {
	rotator, err := in.rotator()
	if err == nil {
		ended, err = rotator.EndWaits(ctx, in.ledger, environment)
	}
	if err != nil {
		c.say("Connections that wait because of the former credentials could not be made due (%v); "+
			"try at once with: tokenturn connection rotate --all --environment %s", err, environment)
	}
	return ended
}

// newCredentials reads what is to be stored, and what is stored so far.
func (c *cli) newCredentials(ctx context.Context, cmd *cobra.Command, in *installation, environment string,
	fromStdin bool) (now, before procore.Credentials, err error) {
	before, err = storedCredentials(ctx, in, environment)
	if err != nil && !errors.Is(err, rotation.ErrNoApplication) {
		c.say("What is stored for %s cannot be read and is not offered again: %v", environment, err)
	}
	redirect := before.RedirectURI
	if redirect == "" && in.publicURL != "" {
		redirect = callbackURL(in.publicURL, environment)
	}
	switch {
	case fromStdin:
		now, err = c.readCredentials(ctx, redirect)
	case !isTerminal(c.stdin):
		err = usageError(cmd, errors.New("standard input is no terminal to ask at; give JSON with --stdin"))
	default:
		now, err = c.askCredentials(ctx, environment, before, redirect)
	}
	return now, before, err
}

// readCredentials takes the stored form from standard input.
func (c *cli) readCredentials(ctx context.Context, redirect string) (procore.Credentials, error) {
	var text []byte
	err := c.readSecrets(ctx, "the credentials as JSON", func(input io.Reader) (err error) {
		text, err = io.ReadAll(io.LimitReader(input, maxInput))
		return err
	})
	if err != nil {
		return procore.Credentials{}, fmt.Errorf("reading standard input: %w; nothing was stored", err)
	}
	credentials, err := procore.ParseCredentials(token.NewSecret(string(text)))
	if err == nil && !knownFields(text, procore.Credentials{}) {
		err = errors.New("there is a field that is none of client_id, client_secret, redirect_uri, login_url and api_url; " +
			"nothing was stored")
	}
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
func (c *cli) askCredentials(ctx context.Context, environment string, before procore.Credentials,
	redirect string) (credentials procore.Credentials, err error) {
	ask := func(what, usual string) (answer string) {
		if err == nil {
			answer, err = c.ask(ctx, what, usual)
		}
		return answer
	}
	credentials.ClientID = ask("Client ID", before.ClientID)
	if err == nil {
		credentials.ClientSecret, err = c.askSecret(ctx, "Client secret (not shown)")
	}
	credentials.RedirectURI = ask("Redirect URI", redirect)
	if _, own := procoreEnvironment(environment); !own || before.LoginURL != "" || before.APIURL != "" {
		credentials.LoginURL = ask("Login URL, such as https://login.example.com", before.LoginURL)
		credentials.APIURL = ask("API URL, such as https://api.example.com", before.APIURL)
	}
	return credentials, unanswered(err, "nothing was stored")
}

// checkError says what the login host's answer to a made-up code means.
func checkError(err error, a appSetAnswer) error {
	if errors.Is(err, procore.ErrCredentialsRefused) {
		return fmt.Errorf("nothing was stored: %s does not accept client id %.80q with the secret whose fingerprint is "+
			"%s; compare both with the Developer Portal, and see that they are those of %s", a.LoginURL, a.ClientID, a.Secret,
			a.Environment)
	}
	return exitf(tryLater, "nothing was stored: %w; try again later, or store them unasked with --no-check", err)
}

func (in *installation) storeCredentials(ctx context.Context, environment string,
	credentials procore.Credentials) error {
	value, err := credentials.Encode()
	if err != nil {
		return err
	}
	return in.apps.Set(ctx, environment, value)
}

// sayAfterSet says what is to be done next.
func (c *cli) sayAfterSet(ctx context.Context, in *installation, a appSetAnswer) {
	if a.Check == "accepted" {
		c.say("%s accepts the client id and the secret.", a.LoginURL)
	}
	if !a.Stored {
		c.say("Nothing was stored; without --dry-run these would be from now on.")
	} else {
		c.say("Stored. The app in the Developer Portal must have exactly this redirect URI: %s", a.RedirectURI)
	}
	for _, other := range in.withSameClient(ctx, a.Environment, a.ClientID, a.Secret) {
		c.say("%s has the same client id and keeps another secret; if that was reset: tokenturn app set %[1]s", other)
	}
	if a.WaitsEnded > 0 {
		c.say("%d connections were waiting because of their configuration. The next run tries them again; at once with: "+
			"tokenturn connection rotate --all --environment %s", a.WaitsEnded, a.Environment)
	}
	if len(a.Affected) > 0 {
		c.say("%d connections are affected. Once the credentials are stored, find out at once what became of them: "+
			"tokenturn connection rotate --all --environment %s", len(a.Affected), a.Environment)
	}
}

// withSameClient names Procore's environments that use the same client id with another
// secret: production and the monthly sandbox have one pair between them.
func (in *installation) withSameClient(ctx context.Context, environment, clientID string,
	secret token.Fingerprint) (others []string) {
	for _, e := range procore.Environments() {
		if e.Name == environment {
			continue
		}
		stored, err := storedCredentials(ctx, in, e.Name)
		if err == nil && stored.ClientID == clientID && stored.ClientSecret.Fingerprint() != secret {
			others = append(others, e.Name)
		}
	}
	return others
}

func (a appSetAnswer) print(w io.Writer) {
	a.appAnswer.print(w)
	for _, one := range a.Affected {
		fmt.Fprintf(w, "%s: %s\n", one.Connection, one.Consequence)
	}
}

// affected is a connection whose tokens may end with the replaced credentials.
type affected struct {
	Connection token.Connection `json:"connection"`
	// Consequence says what becomes of it, for people.
	Consequence string `json:"consequence"`
	// Certain tells those that must consent anew from those that perhaps must.
	Certain bool `json:"certain"`
}

// affectedBy lists the connections that replacing before by now may cost. The
// reset of a secret "revokes the former secret and all access tokens generated
// with it" (Procore, "OAuth Keys", an older edition); whether the refresh
// tokens go with them is not documented.
func affectedBy(now, before procore.Credentials, environment string, records []rotation.Record) (list []affected) {
	client := token.NewSecret(now.ClientID).Fingerprint()
	for _, r := range records {
		switch {
		case r.Connection.Environment != environment || r.Status != rotation.Active:
		case r.Pin != nil && r.Pin.Client != "" && r.Pin.Client != client:
			list = append(list, affected{r.Connection, "must consent again, because it was connected to another client id",
				true})
		case !before.ClientSecret.IsZero() && before.ClientSecret != now.ClientSecret:
			list = append(list, affected{r.Connection, "may have to consent again, because Procore may revoke what the " +
				"former secret had made", false})
		}
	}
	return list
}
