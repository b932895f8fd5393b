package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) tokenPrint() *cobra.Command {
	var renew renewal
	cmd := onConnection(token.ParseConnection, "print ENV/NAME", "Print a connection's access token",
		`Prints the access token and nothing else. A token that is valid for less than a minute
(short-lived tokens: a quarter of their lifetime) is renewed first. --min-ttl asks for more
life, and fails without it. --no-renew prints the token as it is.

If a rotation is in progress, the command waits a moment for it. Exits with 3 if a person
must give consent, 4 if there is no such connection, 5 if the token has expired and cannot
be renewed now, or the new one is not published yet.

In AWS the command also reads the state of the connection in the table and needs the
operator's permissions. Programs with the reader policy read the secret instead: see
infra/examples.`,
		func(ctx context.Context, cmd *cobra.Command, conn token.Connection) error {
			doc, err := c.readToken(ctx, cmd, conn, renew)
			if err != nil {
				return err
			}
			a := tokenAnswer{conn, doc.APIURL, doc.CompanyID, doc.AccessToken.Reveal(), doc.TokenType, doc.ExpiresAt}
			return c.answer(a, func(w io.Writer) { fmt.Fprintln(w, a.AccessToken) })
		})
	renew.flags(cmd)
	return c.withExamples(cmd,
		example{"Print the access token", "tokenturn token print sandbox/acme"},
		example{"Call the API with a token that is valid for five more minutes",
			`curl -H "Authorization: Bearer $(tokenturn token print sandbox/acme --min-ttl 5m)"
https://sandbox.procore.com/rest/v1.0/me`})
}

// tokenAnswer is what `token print --json` answers, the only answer with a token in it.
type tokenAnswer struct {
	Connection  token.Connection `json:"connection"`
	APIURL      string           `json:"api_url"`
	CompanyID   string           `json:"company_id"`
	AccessToken string           `json:"access_token"`
	TokenType   string           `json:"token_type"`
	ExpiresAt   time.Time        `json:"expires_at"`
}
