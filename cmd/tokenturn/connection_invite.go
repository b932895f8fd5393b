package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// invitation is what the flags say about an invitation.
type invitation struct {
	expires   time.Duration
	publicURL string
	expect    rotation.Identity
	returnURL string
}

func (c *cli) connectionInvite() *cobra.Command {
	var wanted invitation
	cmd := onConnection(token.ParseConnection, "invite ENV/NAME", "Create a link with which one person can connect",
		`Prints a link. Send it to the person who connects their Procore account. The link works
for one connection and can be started five times. It ends with a success, or when anything
else connects or disconnects the connection. For an existing connection it renews the
consent: only the same user and company can do that, unless you add --repin. For a
disconnected connection, tokenturn first restores the secret. Anyone with the link can use
it until it is used up; "tokenturn invitation revoke" revokes it. If nobody consents, the
connection is deleted some time after its last invitation expires, at the earliest a day.

The page behind the link shows the number of --company with the name of --company-name,
which nobody compares with anything. A later link for the same company shows it again.

--return-url leads the person back to a page of yours: the result page has a button to it,
with ?connection=ENV/NAME&result=connected|denied|pending|failed&reference=... The page of a
success leads there after eight seconds. The address must have one of the origins in
TOKENTURN_RETURN_ORIGINS (in AWS, the parameter ReturnOrigins; on one machine, set it for
"tokenturn serve" too).

The link leads to the server of the app's redirect URI: with the embedded store that is
"tokenturn serve", in AWS the callback function (TOKENTURN_PUBLIC_URL).`,
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
	flags.DurationVar(&wanted.expires, "expires", invitations.DefaultLifetime, "how long the link is valid")
	flags.StringVar(&wanted.publicURL, "public-url", "", "base URL of the link (default: that of the app's redirect "+
		"URI; in AWS, TOKENTURN_PUBLIC_URL)")
	flags.StringVar(&wanted.returnURL, "return-url", "", "page of yours to lead the person back to")
	expectFlags(cmd, &wanted.expect)
	return c.withExamples(cmd,
		example{"Create a link to send", "tokenturn connection invite sandbox/acme"},
		example{"Create a link for one user and company that expires after a day",
			`tokenturn connection invite production/acme --company 4264807
--company-name "Hawthorne General" --login pat@example.com --expires 24h`},
		example{"Lead the person back to a page of yours",
			"tokenturn connection invite sandbox/acme --return-url https://app.example.com/procore"},
		example{"Print link and id as JSON", "tokenturn --json connection invite sandbox/acme"})
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
	public := strings.TrimRight(wanted.publicURL, "/")
	if public == "" {
		var err error
		if public, err = in.linkBase(ctx, conn.Environment); err != nil {
			return err
		}
	}
	if public == "" {
		return usageError(cmd, errors.New("the base URL of the link is not known; set TOKENTURN_PUBLIC_URL or add "+
			"--public-url"))
	}
	if wanted.returnURL != "" {
		_, err := invitations.ParseReturnURL(wanted.returnURL, in.returnOrigins)
		if errors.Is(err, invitations.ErrOrigin) {
			err = fmt.Errorf("%w; add it to TOKENTURN_RETURN_ORIGINS, in AWS with the parameter ReturnOrigins", err)
		}
		if err != nil {
			return usageError(cmd, fmt.Errorf("--return-url: %w", err))
		}
	}
	link, made, err := in.makeInvitation(ctx, conn, public, wanted)
	if err != nil {
		return err
	}
	c.say("Send this link to the person who connects %s. It connects once, and is valid until %s.", conn,
		stamp(made.ExpiresAt))
	if rec, _, err := in.load(ctx, conn); err == nil && rec.Pin != nil && rec.Pin.ResourceOwner != "" &&
		!wanted.expect.Repin {
		c.say("It is for %s only. To accept another user, add --repin.", rec.Pin.Whose())
	}
	if c.store == "embedded" {
		c.say("It leads to `tokenturn serve`, which must be running when the person opens it.")
		if served := servedAt(in.dir); served != "" && served != public {
			c.say("Warning: tokenturn serve runs at %s, and the link leads to %s, as the app's redirect URI does.", served,
				public)
			if addr, local := strings.CutPrefix(public, "http://"); local {
				c.say("Stop it, and start it there with: tokenturn serve --addr %s", addr)
			}
		}
	}
	id := invitationID(made)
	c.say("To revoke it: tokenturn invitation revoke %s", id)
	return c.answer(inviteAnswer{id, conn, link.Reveal(), made.ExpiresAt},
		func(w io.Writer) { fmt.Fprintln(w, link.Reveal()) })
}

// linkBase is the base URL of links; empty: not known. On one machine it is that of the app's
// redirect URI: no other link can end there, and `serve` may run later.
func (in *installation) linkBase(ctx context.Context, environment string) (string, error) {
	if in.dir == "" { // in AWS it is a setting
		return in.publicURL, nil
	}
	app, err := in.application(ctx, environment)
	if err != nil {
		return "", err
	}
	return linkBase(app.RedirectURI, environment, in.publicURL), nil
}

func linkBase(redirectURI, environment, fallback string) string {
	if base, found := strings.CutSuffix(redirectURI, callbackURL("", environment)); found {
		return base
	}
	return fallback
}

// makeInvitation registers the connection and creates a link that can work.
func (in *installation) makeInvitation(ctx context.Context, conn token.Connection, public string,
	wanted invitation) (token.Secret, invitations.Invitation, error) {
	app, err := in.application(ctx, conn.Environment)
	if err != nil {
		return token.Secret{}, invitations.Invitation{}, err
	}
	if back := callbackURL(public, conn.Environment); app.RedirectURI != back {
		return token.Secret{}, invitations.Invitation{}, fmt.Errorf("the link would lead to %s, but the redirect URI of the "+
			"app credentials of %s is %s; register %s in the Developer Portal and store it with: tokenturn app set %[2]s",
			public, conn.Environment, app.RedirectURI, back)
	}
	now := time.Now()
	rec, err := in.register(ctx, conn, now.Add(wanted.expires))
	if err != nil {
		return token.Secret{}, invitations.Invitation{}, err
	}
	if err := checkPin(rec, wanted.expect); err != nil {
		return token.Secret{}, invitations.Invitation{}, err
	}
	return invitations.New(ctx, in.consents, public, invitations.Invitation{Connection: conn, Expect: wanted.expect,
		Epoch: rec.Epoch, ReturnURL: wanted.returnURL, CreatedAt: now, ExpiresAt: now.Add(wanted.expires)})
}
