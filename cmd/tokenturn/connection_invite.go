package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// invitation is what an invitation is made of.
type invitation struct {
	expires   time.Duration
	publicURL string
	expect    rotation.Identity
}

func (c *cli) connectionInvite() *cobra.Command {
	var wanted invitation
	cmd := onConnection(token.ParseConnection, "invite ENV/NAME", "Make a link by which one person may connect",
		`Prints a link to send to the person whose Procore account is to be connected. It
works for one connection, can be started five times and is used up by a success,
or by whatever else connects or disconnects the connection. For a connection that is
there already it is a renewed consent, which only the same user and company can
give unless --repin is said; for a disconnected one its secret is restored first.
The link is a secret until it is used; take it back with "tokenturn invitation revoke".

On the embedded store links lead to "tokenturn serve", on AWS to the callback
function (TOKENTURN_PUBLIC_URL): wherever the app's redirect URI leads.`,
		func(ctx context.Context, cmd *cobra.Command, conn token.Connection) error {
			if err := checkExpected(cmd, wanted.expect); err != nil {
				return err
			}
			if wanted.expires <= 0 {
				return usageError(cmd, errors.New("--expires takes a time above zero, such as 72h"))
			}
			return c.withNew(ctx, func(in *installation) error { return c.invite(ctx, cmd, in, conn, wanted) })
		})
	flags := cmd.Flags()
	flags.DurationVar(&wanted.expires, "expires", consent.DefaultLifetime, "how long the link can be used")
	flags.StringVar(&wanted.publicURL, "public-url", "", "where the link is to lead (default where the app's redirect "+
		"URI does, on AWS TOKENTURN_PUBLIC_URL)")
	expectFlags(cmd, &wanted.expect)
	return c.withExamples(cmd,
		example{"Create a link", "tokenturn connection invite sandbox/acme"},
		example{"Create a link for one user and company that expires after a day",
			`tokenturn connection invite production/acme --company 4264807
--login pat@example.com --expires 24h`},
		example{"Create a link from a script", "tokenturn --json connection invite sandbox/acme"})
}

// inviteAnswer is what `connection invite --json` answers.
type inviteAnswer struct {
	ID         string           `json:"id"` // for `invitation revoke`
	Connection token.Connection `json:"connection"`
	URL        string           `json:"url"`
	ExpiresAt  time.Time        `json:"expires_at"`
}

func (c *cli) invite(ctx context.Context, cmd *cobra.Command, in *installation, conn token.Connection,
	wanted invitation) error {
	public, err := c.linkBase(ctx, in, conn.Environment, wanted.publicURL)
	if err != nil {
		return err
	}
	if public == "" {
		return usageError(cmd, errors.New("where the link is to lead is not known; set TOKENTURN_PUBLIC_URL or give "+
			"--public-url"))
	}
	link, made, err := in.makeInvitation(ctx, conn, public, wanted)
	if err != nil {
		return err
	}
	c.say("Send this link to the person who is to connect %s. It can be used until %s, with success once.", conn,
		stamp(made.ExpiresAt))
	if rec, _, err := in.load(ctx, conn); err == nil && rec.Pin != nil && rec.Pin.ResourceOwner != "" &&
		!wanted.expect.Repin {
		c.say("It is for %s; nobody else's consent is taken, unless --repin is said.", rec.Pin.Whose())
	}
	if c.store == "embedded" {
		c.say("It leads to `tokenturn serve`, which must be running then.")
	}
	id := invitationID(made)
	c.say("To take it back: tokenturn invitation revoke %s", id)
	return c.answer(inviteAnswer{id, conn, link.Reveal(), made.ExpiresAt},
		func(w io.Writer) { fmt.Fprintln(w, link.Reveal()) })
}

// linkBase is where links lead. Where `serve` listens is not written down anywhere, but the
// app's redirect URI leads there too.
func (c *cli) linkBase(ctx context.Context, in *installation, environment, asked string) (string, error) {
	switch {
	case asked != "":
		return strings.TrimRight(asked, "/"), nil
	case c.store != "embedded":
		return in.publicURL, nil
	}
	app, err := in.application(ctx, environment)
	if err != nil {
		return "", err
	}
	if base, found := strings.CutSuffix(app.RedirectURI, callbackURL("", environment)); found {
		return base, nil
	}
	return in.publicURL, nil
}

// makeInvitation registers the connection and makes a link that can work.
func (in *installation) makeInvitation(ctx context.Context, conn token.Connection, public string,
	wanted invitation) (token.Secret, consent.Invitation, error) {
	app, err := in.application(ctx, conn.Environment)
	if err != nil {
		return token.Secret{}, consent.Invitation{}, err
	}
	if back := callbackURL(public, conn.Environment); app.RedirectURI != back {
		return token.Secret{}, consent.Invitation{}, fmt.Errorf("the link would lead to %s, but the app credentials of %s "+
			"send people back to %s; register %s in the Developer Portal and store it with: tokenturn app set %[2]s", public,
			conn.Environment, app.RedirectURI, back)
	}
	rec, err := in.register(ctx, conn)
	if err != nil {
		return token.Secret{}, consent.Invitation{}, err
	}
	if err := checkPin(rec, wanted.expect); err != nil {
		return token.Secret{}, consent.Invitation{}, err
	}
	now := time.Now()
	return consent.Invite(ctx, in.consents, public, consent.Invitation{Connection: conn, Expect: wanted.expect,
		Epoch: rec.Epoch, CreatedAt: now, ExpiresAt: now.Add(wanted.expires)})
}
