package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/tokenturn/tokenturn/pkg/loopback"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	// codeLife is how long an authorization code can be exchanged (Procore,
	// "OAuth Endpoints").
	codeLife = 10 * time.Minute
	// exchangeLimit bounds the exchange of a code, or the use of a refresh token, with
	// everything that follows it.
	exchangeLimit = 2 * time.Minute
	// fromApp is the value of --loopback without one.
	fromApp = "registered"
)

// authorizeFlags are the flags of `connection authorize`.
type authorizeFlags struct {
	expect    rotation.Identity
	loopback  string // a redirect URI, fromApp, or empty for the out-of-band flow
	noBrowser bool
}

func (c *cli) connectionAuthorize() *cobra.Command {
	var flags authorizeFlags
	cmd := onConnection(token.ParseConnection, "authorize ENV/NAME",
		"Connect from this terminal, without a public URL",
		`Prints the URL of Procore's authorization page, and opens it if there is a browser.
Allow access there, then paste what Procore shows: the authorization code, or the whole
URL of the page. The input is not shown. The app must have the redirect URI
`+procore.OutOfBand+` in the Developer Portal.

The command reads the code from standard input only, where no other user of the machine
can see it. The code works once, within ten minutes. Procore's page does not say which
connection it is for. To catch mix-ups, an existing connection accepts no other Procore
user, and for a new one the command prints the user.

With --loopback there is nothing to paste: the browser on this machine delivers the code.
tokenturn uses the app's redirect URI if it begins with http://localhost, otherwise
http://localhost (port 80), which is Procore's default. --loopback=URI names another one.
The Developer Portal must have exactly the same redirect URI.

Until the code is exchanged, Ctrl-C changes nothing. After that, tokenturn finishes the
exchange first, so that the token pair is not lost.`,
		func(ctx context.Context, cmd *cobra.Command, conn token.Connection) error {
			if err := checkExpected(cmd, flags.expect); err != nil {
				return err
			}
			if flags.loopback != "" && flags.loopback != fromApp && !loopback.IsLoopback(flags.loopback) {
				return usageError(cmd, fmt.Errorf("--loopback: %w", loopback.ErrNotLoopback))
			}
			return c.withNew(ctx, func(in *installation) error { return c.authorize(ctx, in, conn, flags) })
		})
	expectFlags(cmd, &flags.expect)
	cmd.Flags().StringVar(&flags.loopback, "loopback", "",
		"receive the code on this machine at a registered redirect `URI`")
	cmd.Flags().Lookup("loopback").NoOptDefVal = fromApp
	cmd.Flags().BoolVar(&flags.noBrowser, "no-browser", false, "do not open a browser")
	return c.withExamples(cmd,
		example{"Connect by pasting the code that Procore shows", "tokenturn connection authorize sandbox/acme"},
		example{"Connect a given user with access to a given company",
			"tokenturn connection authorize production/acme --company 4264807 --login pat@example.com"},
		example{"Connect with a redirect to a port of this machine",
			"tokenturn connection authorize sandbox/acme --loopback=http://localhost:8765/callback"})
}

// authorizeAnswer is what `connection authorize --json` answers.
type authorizeAnswer struct {
	Connection    token.Connection       `json:"connection"`
	Result        rotation.ConsentResult `json:"result"`
	Published     bool                   `json:"published"`
	ResourceOwner string                 `json:"resource_owner,omitempty"`
	Company       string                 `json:"company,omitempty"`
	ExpiresAt     time.Time              `json:"expires_at,omitzero"`
}

func (c *cli) authorize(ctx context.Context, in *installation, conn token.Connection, flags authorizeFlags) error {
	app, err := in.application(ctx, conn.Environment)
	if err != nil {
		return err
	}
	consents, err := in.exchanges()
	if err != nil {
		return err
	}
	rec, _, err := in.ledger.Load(ctx, conn)
	if err != nil {
		return err
	}
	if err := checkPin(rec, flags.expect); err != nil {
		return err
	}
	obtain := c.pasteCode
	if flags.loopback != "" {
		obtain = c.receiveCode
	}
	asked := time.Now()
	consent, err := obtain(ctx, app, conn, flags)
	if err != nil {
		return err
	}
	consent.Expect = flags.expect
	// Registering may restore a secret that is scheduled for deletion. Nothing is changed for
	// a person who gives up before.
	registered, err := in.register(ctx, conn, time.Now().Add(codeLife))
	if err != nil {
		return err
	}
	if rec.Revision == "" {
		rec = registered
	}
	exchange, err := consents.Prepare(ctx, conn, rec.Epoch)
	if err != nil {
		return err
	}
	working, finished := c.uninterrupted(ctx, "The code is being exchanged. Stopping now would lose the token pair; "+
		"tokenturn stops when it is saved.")
	defer finished()
	switch result, err := exchange.Redeem(working, consent); result {
	case rotation.Connected:
		return c.connected(working, in, conn)
	case rotation.CodeRefused:
		return in.codeRefused(working, conn, asked, err)
	default:
		return consentError(conn, result, err)
	}
}

// pasteAttempts is how often the prompt accepts an empty line.
const pasteAttempts = 3

// pasteCode lets the person copy the code from Procore's page.
func (c *cli) pasteCode(ctx context.Context, app rotation.Application, conn token.Connection,
	flags authorizeFlags) (rotation.Consent, error) {
	verifier := token.NewSecret(oauth2.GenerateVerifier())
	address := procore.AuthorizeURL(app, procore.OutOfBand, "", oauth2.S256ChallengeFromVerifier(verifier.Reveal()))
	c.say("Open this URL, sign in, and allow access:\n\n  %s\n\nThen paste the code or URL that Procore shows.", address)
	if !flags.noBrowser {
		c.openBrowser(address)
	}
	if !isTerminal(c.stdin) {
		c.say("Standard input is not a terminal; the code is read from it anyway.")
	}
	for attempt := 1; ; attempt++ {
		pasted, err := c.askSecret(ctx, "Code or URL (not shown)")
		if err != nil {
			return rotation.Consent{}, unanswered(err, "no code was exchanged and nothing was changed")
		}
		code, err := procore.PastedCode(app, pasted)
		switch {
		case err == nil:
			return rotation.Consent{Code: code, RedirectURI: procore.OutOfBand, Verifier: verifier}, nil
		case errors.Is(err, procore.ErrNothingPasted) && attempt < pasteAttempts:
			c.say("Nothing was pasted.")
		default:
			return rotation.Consent{}, pasteError(conn, err)
		}
	}
}

// receiveCode lets the browser on this machine deliver the code.
func (c *cli) receiveCode(ctx context.Context, app rotation.Application, conn token.Connection,
	flags authorizeFlags) (rotation.Consent, error) {
	redirect := flags.loopback
	switch {
	case redirect != fromApp:
	case loopback.IsLoopback(app.RedirectURI):
		redirect = app.RedirectURI
	default:
		redirect = "http://localhost" // the default of the Developer Portal
	}
	state, verifier := token.NewSecret(newState()), token.NewSecret(oauth2.GenerateVerifier())
	receiver, err := loopback.Listen(redirect, state)
	if err != nil {
		return rotation.Consent{}, fmt.Errorf("%w; register another redirect URI, such as http://localhost:8765/callback, "+
			"and name it with --loopback=URI, or leave out --loopback and paste the code (if `tokenturn serve` "+
			"runs here, use `tokenturn connection invite %s` instead)", err, conn)
	}
	defer receiver.Close()
	address := procore.AuthorizeURL(app, redirect, state.Reveal(), oauth2.S256ChallengeFromVerifier(verifier.Reveal()))
	c.say("Open this URL in a browser on this machine, sign in, and allow access:\n\n  %s\n\nWaiting up to ten "+
		"minutes for the browser to return to %s. If Procore shows an error, that redirect URI is not registered.", address,
		redirect)
	if !flags.noBrowser {
		c.openBrowser(address)
	}
	waiting, cancel := context.WithTimeout(ctx, codeLife)
	defer cancel()
	code, err := receiver.Wait(waiting)
	switch {
	case err == nil:
		return rotation.Consent{Code: code, RedirectURI: redirect, Verifier: verifier}, nil
	case errors.Is(err, loopback.ErrDenied):
		return rotation.Consent{}, exitf(needsConsent, "access was not allowed, so nothing was changed; "+
			"run the command again and choose Allow")
	case errors.Is(err, loopback.ErrNotAsked):
		return rotation.Consent{}, fmt.Errorf("%w, so nothing was changed; run the command again, and if it fails "+
			"again, check the app of %s in the Developer Portal", err, conn.Environment)
	case ctx.Err() != nil:
		return rotation.Consent{}, fmt.Errorf("%w; no code was exchanged and nothing was changed", errInterrupted)
	}
	return rotation.Consent{}, exitf(tryLater, "the browser did not return within ten minutes, so nothing was changed; "+
		"run the command again, and make sure that %s is registered in the Developer Portal", redirect)
}

// connected publishes the new pair and prints which user it belongs to.
func (c *cli) connected(ctx context.Context, in *installation, conn token.Connection) error {
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	report, err := rotator.Publish(ctx, conn)
	if err != nil {
		return err
	}
	published := outcomeError(report.Connections[0])
	rec, _, err := in.load(ctx, conn)
	if err != nil {
		return err
	}
	a := authorizeAnswer{Connection: conn, Result: rotation.Connected, Published: published == nil}
	if rec.Pin != nil {
		a.ResourceOwner, a.Company = rec.Pin.ResourceOwner, rec.Pin.Company
	}
	if rec.Current != nil {
		a.ExpiresAt = rec.Current.ExpiresAt
	}
	if published != nil {
		published = fmt.Errorf("%s is connected and its token pair is saved, but not published yet; "+
			"the next run publishes it: %w",
			conn, published)
	}
	return errors.Join(published, c.answer(a, a.print))
}

func (a authorizeAnswer) print(w io.Writer) {
	user := "Procore user " + orDash(a.ResourceOwner)
	if a.Company != "" {
		user += " in company " + a.Company
	}
	fmt.Fprintf(w, "%s is connected: %s, access token valid until %s\n", a.Connection, user, stamp(a.ExpiresAt))
}
