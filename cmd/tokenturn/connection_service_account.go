package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionServiceAccount() *cobra.Command {
	var expect rotation.Identity
	cmd := onConnection(token.ParseConnection, "service-account ENV/NAME --company ID",
		"Connect as the app itself, without a person's consent",
		`Gets an access token with the app's own credentials (grant type client_credentials), as
Procore's developer-managed service accounts do. tokenturn keeps it fresh on the same
schedule, in the same kind of secret, for the same readers. There is no refresh token, so
none can be lost, and nobody ever has to give a new consent.

The credentials are those of "tokenturn app set ENV". The app's version must have a
service account, and an administrator of the company must have installed the app and
chosen its projects. One connection is for one company.`,
		func(ctx context.Context, cmd *cobra.Command, conn token.Connection) error {
			if expect.Company == "" {
				return usageError(cmd, errors.New("--company is missing; a service account works in one company"))
			}
			if err := checkExpected(cmd, expect); err != nil {
				return err
			}
			return c.withNew(ctx, func(in *installation) error { return c.serviceAccount(ctx, in, conn, expect.Company) })
		})
	cmd.Flags().StringVar(&expect.Company, "company", "", "id of the Procore company")
	return c.withExamples(cmd,
		example{"Connect the app's service account in one company",
			"tokenturn connection service-account production/sync --company 4264807"})
}

// serviceAccountAnswer is what `connection service-account --json` answers.
type serviceAccountAnswer struct {
	Connection token.Connection `json:"connection"`
	Outcome    rotation.Outcome `json:"outcome"`
	Company    string           `json:"company"`
	Permitted  bool             `json:"permitted"` // the app has access to the company
	ExpiresAt  time.Time        `json:"expires_at"`
}

func (c *cli) serviceAccount(ctx context.Context, in *installation, conn token.Connection, company string) error {
	app, err := in.application(ctx, conn.Environment)
	if err != nil {
		return err
	}
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	if _, err := in.register(ctx, conn, time.Now().Add(codeLife)); err != nil {
		return err
	}
	report, err := rotator.ServiceAccount(ctx, conn, company)
	if err != nil {
		return err
	}
	r := report.Connections[0]
	if err := outcomeError(r); err != nil {
		return fmt.Errorf("%w\ntokenturn tries again automatically. If it was a mistake: tokenturn connection "+
			"disconnect %s", err, conn)
	}
	doc, err := in.published(ctx, conn)
	if err != nil {
		return err
	}
	id, err := in.issuer.Identify(ctx, app, doc.AccessToken, company)
	if err != nil && !errors.Is(err, rotation.ErrAppNotInstalled) {
		return exitf(tryLater, "%s has a token, but its access to company %s could not be checked: %w", conn,
			company, err)
	}
	a := serviceAccountAnswer{conn, r.Outcome, company, id.Company == company, r.ExpiresAt}
	return errors.Join(c.answer(a, a.print), a.unusable())
}

func (a serviceAccountAnswer) print(w io.Writer) {
	fmt.Fprintf(w, "%s is connected: service account in company %s, access token valid until %s\n", a.Connection,
		a.Company, stamp(a.ExpiresAt))
}

func (a serviceAccountAnswer) unusable() error {
	if a.Permitted {
		return nil
	}
	return fmt.Errorf("the token of %s is valid, but has no access to company %s; an administrator of the company "+
		"must install the app and choose the projects of its service account", a.Connection, a.Company)
}
