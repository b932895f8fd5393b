package main

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) appCommand() *cobra.Command {
	return c.noun("app", "Manage the credentials of your app in Procore's Developer Portal",
		"Each environment has one app: a client id, a client secret and a redirect URI.", c.appSet(), c.appShow())
}

func storedCredentials(ctx context.Context, in *installation, environment string) (procore.Credentials, error) {
	value, err := in.apps.Value(ctx, environment)
	if err != nil {
		return procore.Credentials{}, err
	}
	return procore.ParseCredentials(value)
}

// appAnswer is what `app show` prints of app credentials.
type appAnswer struct {
	Environment string            `json:"environment"`
	ClientID    string            `json:"client_id"`
	Secret      token.Fingerprint `json:"client_secret_fingerprint"`
	Second      token.Fingerprint `json:"second_client_secret_fingerprint,omitempty"`
	RedirectURI string            `json:"redirect_uri"`
	LoginURL    string            `json:"login_url"`
	APIURL      string            `json:"api_url"`
	Overrides   []string          `json:"overrides"` // of login_url and api_url, those that replace Procore's own
	Name        string            `json:"name"`      // on the consent page; empty: none
	Logo        string            `json:"logo"`      // its media type; empty: none
}

func newAppAnswer(environment string, credentials procore.Credentials) appAnswer {
	usual, _ := procoreEnvironment(environment)
	a := appAnswer{Environment: environment, ClientID: credentials.ClientID,
		Secret:      credentials.ClientSecret.Fingerprint(),
		RedirectURI: credentials.RedirectURI, LoginURL: usual.LoginURL, APIURL: usual.APIURL, Overrides: []string{},
		Name: credentials.Name, Logo: logoType(credentials.Logo)}
	if !credentials.SecondSecret.IsZero() {
		a.Second = credentials.SecondSecret.Fingerprint()
	}
	override := func(name string, value *string, with string) {
		with = strings.TrimRight(with, "/")
		if with == "" || with == *value {
			return
		}
		if *value != "" {
			a.Overrides = append(a.Overrides, name)
		}
		*value = with
	}
	override("login_url", &a.LoginURL, credentials.LoginURL)
	override("api_url", &a.APIURL, credentials.APIURL)
	return a
}

func (a appAnswer) print(w io.Writer) {
	usual, _ := procoreEnvironment(a.Environment)
	insteadOf := func(name, value string) string {
		if !slices.Contains(a.Overrides, name) {
			return ""
		}
		return "  (in place of " + value + ")"
	}
	var t table
	t.row("environment", a.Environment)
	t.row("client id", a.ClientID)
	t.row("client secret", "fingerprint "+string(a.Secret))
	if a.Second != "" {
		t.row("second client secret", "fingerprint "+string(a.Second))
	}
	t.row("redirect URI", a.RedirectURI)
	t.row("login URL", a.LoginURL+insteadOf("login_url", usual.LoginURL))
	t.row("API URL", a.APIURL+insteadOf("api_url", usual.APIURL))
	t.row("name for people", orDash(a.Name))
	t.row("logo", orDash(a.Logo))
	t.print(w)
}

// callbackURL is the redirect URI of a server with that public URL.
func callbackURL(publicURL, environment string) string { return publicURL + "/callback/" + environment }
