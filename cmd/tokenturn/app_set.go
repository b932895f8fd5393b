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

// appSetFlags are the flags of `app set`.
type appSetFlags struct {
	fromStdin, noCheck, dryRun, add bool
	face                            appFace
}

func (c *cli) appSet() *cobra.Command {
	var flags appSetFlags
	cmd := onEnvironment(token.ParseEnvironment, "set ENV", "Store the app credentials of an environment",
		`Prompts for client id, client secret and redirect URI, and stores them in place of
earlier ones. ENV is production, sandbox, monthly-sandbox or federal, which are Procore's
own environments, or another name, which makes a custom environment. For that one it also
prompts for the login URL and the API URL.

tokenturn first checks whether the login host accepts the client id and secret, by
exchanging a made-up code, and stores nothing if it does not. --no-check skips the check.

The command never takes the secret from an argument or an environment variable, where
other users of the machine could see it. Scripts pass JSON on standard input with --stdin:
{"client_id","client_secret","redirect_uri","login_url","api_url"}. Leave out the URLs
that have the correct default.

After you reset a client secret in the Developer Portal, run this command at once: the
former secret is invalid from that moment, and Procore may revoke every token issued with
it. --dry-run stores nothing and lists the connections with such tokens: those of users may
need a new consent, service accounts need none.

--add stores another client secret of the same client id beside the first one, and changes
nothing else. tokenturn uses it once the server refuses the first. Use it when you do not
know which of two secrets is valid. Before the server exchanges one for the other, it accepts
only the first, so add --no-check too. With --stdin it reads {"client_secret"}. Without
--add, the command stores one secret only.

--name and --logo say what people see of the app on the consent page. Use the app's name in
the Developer Portal, because Procore's page shows that one. The logo is a PNG, which is
made smaller if it is large, or an SVG of shapes only. Without --stdin these flags change
nothing else, and the command prompts for nothing. An empty value removes name or logo.

`+customEnvironments,
		func(ctx context.Context, cmd *cobra.Command, environment string) error {
			if err := flags.face.read(cmd); err != nil {
				return err
			}
			open := c.withNew
			if flags.add && flags.face.given() {
				return usageError(cmd, errors.New("--add takes neither --name nor --logo"))
			}
			if flags.add || flags.dryRun || flags.face.given() && !flags.fromStdin {
				open = c.with
			}
			return open(ctx, func(in *installation) error { return c.setApp(ctx, cmd, in, environment, flags) })
		})
	cmd.Flags().BoolVar(&flags.fromStdin, "stdin", false, "read the credentials as JSON from standard input")
	cmd.Flags().BoolVar(&flags.noCheck, "no-check", false, "store the credentials without checking them at the login host")
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "store nothing; list the connections that would be affected")
	cmd.Flags().BoolVar(&flags.add, "add", false, "store a second client secret, for when the server refuses the first")
	flags.face.flags(cmd)
	return c.withExamples(cmd,
		example{"Store the app credentials of the developer sandbox", "tokenturn app set sandbox"},
		example{"See which connections other credentials would affect", "tokenturn app set sandbox --dry-run"},
		example{"Read the credentials from a file", "tokenturn app set sandbox --stdin < credentials.json"},
		example{"Show the app's name and logo on the consent page",
			`tokenturn app set sandbox --name "Acme Integrations" --logo logo.png`},
		example{"Keep a second client secret for a reset", "tokenturn app set production --add"},
		example{"Store the production credentials in AWS", "tokenturn --store aws app set production"})
}

// appSetAnswer is what `app set --json` answers.
type appSetAnswer struct {
	appAnswer
	Check  string `json:"check"` // accepted by the login host, or skipped
	Stored bool   `json:"stored"`
	// WaitsEnded is how many connections waited because of the configuration and are now
	// tried again.
	WaitsEnded int `json:"waits_ended"`
	// Affected are the connections with tokens that may end with the replaced credentials.
	Affected []affected `json:"affected"`
}

func (c *cli) setApp(ctx context.Context, cmd *cobra.Command, in *installation, environment string,
	flags appSetFlags) error {
	if flags.face.given() && !flags.fromStdin {
		return c.setFace(ctx, in, environment, flags)
	}
	if flags.add {
		return c.addSecret(ctx, cmd, in, environment, flags)
	}
	credentials, before, err := c.newCredentials(ctx, cmd, in, environment, flags.fromStdin)
	if err != nil {
		return err
	}
	credentials.Name, credentials.Logo = before.Name, before.Logo
	flags.face.apply(&credentials)
	app, err := credentials.Application(environment)
	if err != nil {
		return exitf(usage, "nothing was stored: the credentials for %s are not valid:\n%w", environment, err)
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
		if where := c.installationName(); where != "" {
			c.say("Installation: %s", where)
		}
		a.WaitsEnded = c.endWaits(ctx, in, environment)
	}
	c.sayAfterSet(ctx, in, a)
	return c.answer(a, a.print)
}

// endWaits makes the connections due that wait because of the former credentials. If it
// fails, their next run still notices that the credentials have changed.
func (c *cli) endWaits(ctx context.Context, in *installation, environment string) (ended int) {
	rotator, err := in.rotator()
	if err == nil {
		ended, err = rotator.EndWaits(ctx, in.ledger, environment)
	}
	if err != nil {
		c.say("Connections that wait because of the former credentials could not be made due (%v); "+
			"rotate them now with: tokenturn connection rotate --all --environment %s", err, environment)
	}
	return ended
}

// newCredentials reads the credentials to store, and those that are stored now.
func (c *cli) newCredentials(ctx context.Context, cmd *cobra.Command, in *installation, environment string,
	fromStdin bool) (now, before procore.Credentials, err error) {
	before, err = storedCredentials(ctx, in, environment)
	if err != nil && !errors.Is(err, rotation.ErrNoApplication) {
		c.say("The stored credentials of %s cannot be read, so there are no default answers: %v", environment, err)
	}
	redirect := before.RedirectURI
	if redirect == "" && in.publicURL != "" {
		redirect = callbackURL(in.publicURL, environment)
	}
	switch {
	case fromStdin:
		now, err = c.readCredentials(ctx, redirect, before.RedirectURI != "")
	case !isTerminal(c.stdin):
		err = usageError(cmd, errors.New("standard input is not a terminal; pass the credentials as JSON with --stdin"))
	default:
		now, err = c.askCredentials(ctx, environment, before, redirect)
	}
	return now, before, err
}

// readCredentials reads the credentials as JSON from standard input. Without a redirect URI
// there, it takes the usual one: the stored one if there is one.
func (c *cli) readCredentials(ctx context.Context, redirect string, stored bool) (procore.Credentials, error) {
	var text []byte
	err := c.readSecrets(ctx, "the credentials as JSON", func(input io.Reader) (err error) {
		text, err = io.ReadAll(io.LimitReader(input, maxInput))
		return err
	})
	if err != nil {
		return procore.Credentials{}, fmt.Errorf("reading standard input: %w; nothing was stored", err)
	}
	credentials, err := procore.ParseCredentials(token.NewSecret(string(text)))
	if err == nil && (!knownFields(text, procore.Credentials{}) || credentials.Name != "" || credentials.Logo != "" ||
		!credentials.SecondSecret.IsZero()) {
		err = errors.New("there is a field other than client_id, client_secret, redirect_uri, login_url and api_url; " +
			"nothing was stored")
	}
	if err != nil {
		return procore.Credentials{}, exitf(usage, "standard input: %w", err)
	}
	if credentials.RedirectURI == "" {
		credentials.RedirectURI = redirect
		if stored {
			c.say("Standard input has no redirect_uri, so the stored one is kept: %s", redirect)
		}
	}
	return credentials, nil
}

// askCredentials asks a person. The stored values are the default answers, except for the
// secret.
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
	_, own := procoreEnvironment(environment)
	if !own && err == nil {
		c.say("%s is a custom environment.\n%s", environment, customEnvironments)
	}
	if !own || before.LoginURL != "" || before.APIURL != "" {
		credentials.LoginURL = ask("Login URL, such as https://login.example.com", before.LoginURL)
		credentials.APIURL = ask("API URL, such as https://api.example.com", before.APIURL)
	}
	return credentials, unanswered(err, "nothing was stored")
}

// checkError turns the login host's answer to a made-up code into an error for people.
func checkError(err error, a appSetAnswer) error {
	_, own := procoreEnvironment(a.Environment)
	if errors.Is(err, rotation.ErrCredentialsRefused) {
		other := ""
		if !own {
			other = "; or the server does not accept credentials in the request body: see `tokenturn app set --help`"
		}
		return fmt.Errorf("nothing was stored: %s does not accept client id %.80q with the secret that has the "+
			"fingerprint %s; compare both with the Developer Portal, and make sure that they are those of %s%s",
			a.LoginURL, a.ClientID, a.Secret, a.Environment, other)
	}
	// Another server that refuses the request, or has no such page, does so each time. In
	// front of Procore's own it is a firewall or a proxy.
	if check, ok := errors.AsType[*procore.CheckError](err); ok && !own &&
		(check.Answer.Class == rotation.RequestFault || check.Answer.Class == rotation.OddRefusal) {
		return fmt.Errorf("nothing was stored: %s answered a made-up code with %s instead of invalid_grant. The server may "+
			"not behave as Procore's does; see `tokenturn app set --help`", a.LoginURL, check.Answer.Detail)
	}
	return exitf(tryLater, "nothing was stored: %w; try again later, or skip the check with --no-check", err)
}

func (in *installation) storeCredentials(ctx context.Context, environment string,
	credentials procore.Credentials) error {
	value, err := credentials.Encode()
	if err != nil {
		return err
	}
	return in.apps.Set(ctx, environment, value)
}

// sayAfterSet says what to do next.
func (c *cli) sayAfterSet(ctx context.Context, in *installation, a appSetAnswer) {
	if a.Check == "accepted" {
		c.say("%s accepts the client id and secret.", a.LoginURL)
	}
	if !a.Stored {
		c.say("Nothing was stored. To store these credentials, leave out --dry-run.")
	} else {
		c.say("Stored. Make sure that the app in the Developer Portal has exactly this redirect URI: %s", a.RedirectURI)
	}
	if served := servedAt(in.dir); served != "" && a.RedirectURI != callbackURL(served, a.Environment) &&
		a.RedirectURI != procore.OutOfBand {
		c.say("Warning: tokenturn serve runs at %s and does not serve that redirect URI, so consent links of %s do not work.",
			served, a.Environment)
	}
	for _, other := range in.withSameClient(ctx, a.Environment, a.ClientID, a.Secret) {
		c.say("%s has the same client id and another secret. If the secret was reset, store it there too: "+
			"tokenturn app set %[1]s", other)
	}
	c.sayWaitsEnded(a)
	if len(a.Affected) > 0 {
		c.say("%s affected. After storing the credentials, check for connections that no longer work: "+
			"tokenturn connection rotate --all --environment %s",
			counted(len(a.Affected), "connection is", "connections are"), a.Environment)
	}
}

func (c *cli) sayWaitsEnded(a appSetAnswer) {
	if a.WaitsEnded > 0 {
		c.say("%s waiting because of the configuration. The next run tries again. To try now: "+
			"tokenturn connection rotate --all --environment %s",
			counted(a.WaitsEnded, "connection was", "connections were"), a.Environment)
	}
}

// withSameClient names Procore's environments that use the same client id with another
// secret: production and the monthly sandbox share one client id and secret.
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

// affected is a connection with tokens that may end with the replaced credentials.
type affected struct {
	Connection token.Connection `json:"connection"`
	// Consequence says what happens to it, for people.
	Consequence string `json:"consequence"`
	// Certain: a new consent is needed. Otherwise it may be needed, or for a service account
	// it is not.
	Certain bool `json:"certain"`
}

// affectedBy lists the connections that may end when now replaces before. The
// reset of a secret "revokes the former secret and all access tokens generated
// with it" (Procore, "OAuth Keys", an older edition); whether the refresh
// tokens go with them is not documented.
func affectedBy(now, before procore.Credentials, environment string, records []rotation.Record) (list []affected) {
	client := token.NewSecret(now.ClientID).Fingerprint()
	for _, r := range records {
		switch {
		case r.Connection.Environment != environment || r.Status != rotation.Active:
		case r.Pin != nil && r.Pin.Client != "" && r.Pin.Client != client:
			list = append(list, affected{r.Connection, "needs a new consent, because it was connected with another client id",
				true})
		case r.ServiceAccount && !before.ClientSecret.IsZero() && before.ClientID != now.ClientID:
			list = append(list, affected{r.Connection, "needs no consent, but gets its next access token as the service " +
				"account of the other client id", false})
		case r.ServiceAccount && !before.ClientSecret.IsZero() && before.ClientSecret != now.ClientSecret:
			list = append(list, affected{r.Connection, "needs no consent, but Procore may revoke the access token that was " +
				"issued with the former secret; the next rotation gets another one", false})
		case !before.ClientSecret.IsZero() && before.ClientSecret != now.ClientSecret:
			list = append(list, affected{r.Connection, "may need a new consent, because Procore may revoke the tokens " +
				"that were issued with the former secret", false})
		}
	}
	return list
}
