package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The kinds of access that `connection convert --to` takes.
const (
	toServiceAccount = "service-account"
	toUser           = "user"
)

func (c *cli) connectionConvert() *cobra.Command {
	var to string
	var expect rotation.Identity
	cmd := onConnection(token.ParseConnection, "convert ENV/NAME --to user|service-account",
		"Replace a user's consent by the app's service account, or the reverse",
		`Changes the kind of access of a connection. Programs go on reading the same secret, and
have a valid token at every moment. See "tokenturn doctor --advise" for which kind you need.

--to service-account gets a token for the app itself, checks its access to the company (by
default the connection's), publishes it, and then revokes the user's tokens. If the service
account has no access, nothing changes.

--to user creates a link, as "connection invite" does. The service account stays in use
until the person who opens the link allows access; its last token then expires.`,
		func(ctx context.Context, cmd *cobra.Command, conn token.Connection) error {
			if to != toServiceAccount && to != toUser {
				return usageError(cmd, errors.New("--to takes user or service-account"))
			}
			if err := checkExpected(cmd, expect); err != nil {
				return err
			}
			return c.with(ctx, func(in *installation) error {
				rec, _, err := in.load(ctx, conn)
				if err != nil {
					return err
				}
				if rec.Status == rotation.Pending || rec.Status == rotation.Disconnected {
					return exitf(notFound, "%s is not connected, so there is nothing to convert; connect it with: "+
						"tokenturn connection invite %[1]s, or: tokenturn connection service-account %[1]s --company ID", conn)
				}
				if rec.ServiceAccount == (to == toServiceAccount) {
					return exitf(usage, "%s has this kind of access already", conn)
				}
				if to == toUser {
					expect.Company = cmp.Or(expect.Company, rec.Pin.Company)
					return c.invite(ctx, cmd, in, conn, invitation{expires: invitations.DefaultLifetime, expect: expect})
				}
				if expect.Company = cmp.Or(expect.Company, rec.Pin.Company); expect.Company == "" {
					return usageError(cmd, errors.New("--company is missing; a service account works in one company"))
				}
				return c.convertToAccount(ctx, in, rec, expect.Company)
			})
		})
	cmd.Flags().StringVar(&to, "to", "", "kind of access: user or service-account")
	cmd.Flags().StringVar(&expect.Company, "company", "", "id of the Procore company (default: the connection's)")
	return c.withExamples(cmd,
		example{"Go on without a user's consent", "tokenturn connection convert production/acme --to service-account"},
		example{"Go on with a user's consent", "tokenturn connection convert production/acme --to user"})
}

// convertToAccount replaces the user's consent of the connection with the record former.
func (c *cli) convertToAccount(ctx context.Context, in *installation, former rotation.Record, company string) error {
	conn := former.Connection
	consents, err := in.exchanges()
	if err != nil {
		return err
	}
	result, err := consents.ServiceAccount(ctx, conn, company)
	switch result {
	case rotation.Connected:
	case rotation.Verifying:
		return exitf(tryLater, "the service account's token is saved, but could not be checked yet: %w\nThe user's tokens "+
			"stay in use until then. tokenturn checks again automatically while the service account's token is valid", err)
	default:
		return fmt.Errorf("nothing was changed; the user's tokens stay in use: %w", err)
	}
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	report, err := rotator.Publish(ctx, conn)
	if err != nil {
		return err
	}
	r := report.Connections[0]
	if err := outcomeError(r); err != nil {
		return fmt.Errorf("%s is a service account now and its token is saved, but not published yet; the next run "+
			"publishes it: %w", conn, err)
	}
	c.say("Readers have the new token, so tokenturn revokes the user's tokens. The result is in: "+
		"tokenturn connection history %s", conn)
	if former.Attempt != nil {
		c.say("A refresh of the user's tokens had no result. If Procore gave a new pair in its answer, that pair works " +
			"until the user revokes the app's access in Procore.")
	}
	a := serviceAccountAnswer{conn, r.Outcome, company, true, r.ExpiresAt}
	return c.answer(a, a.print)
}
