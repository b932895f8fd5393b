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
	// exchangeLimit bounds an exchange, or the redeeming of a refresh token, with all
	// that follows it.
	exchangeLimit = 2 * time.Minute
	// fromApp stands for --loopback without a value.
	fromApp = "registered"
)

// authorizeFlags say how `connection authorize` goes about it.
type authorizeFlags struct {
	expect    rotation.Identity
	loopback  string // a redirect URI, fromApp, or empty for out of band
	noBrowser bool
}

func (c *cli) connectionAuthorize() *cobra.Command {
	var flags authorizeFlags
	cmd := onConnection(token.ParseConnection, "authorize ENV/NAME",
		"Connect from this terminal, without a public address",
		`Prints the address of Procore's authorization page, and opens it where there is a
browser. Allow access there, then paste what Procore shows: the code, or the whole
address of the page. Nothing of it appears on the screen. The app must have the
redirect URI `+procore.OutOfBand+` in the Developer Portal.

The code is read from standard input only, where no other user of the machine sees
it. It is good for ten minutes and for one use. The page does not say for which
connection it is; what protects is that an existing connection takes no other Procore
user, and a new one shows whom it belongs to.

With --loopback nothing is pasted: the browser on this machine brings the code. The
app's own redirect URI is used if it begins with http://localhost, else
http://localhost, Procore's default, which means port 80; --loopback=URI names another
one. It must be registered in the Developer Portal character by character.

Ctrl-C changes nothing until the code is exchanged; from then on what was begun is
finished first, so that the pair is not lost.`,
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
	cmd.Flags().StringVar(&flags.loopback, "loopback", "", "receive the code on this machine, at a registered `URI`")
	cmd.Flags().Lookup("loopback").NoOptDefVal = fromApp
	cmd.Flags().BoolVar(&flags.noBrowser, "no-browser", false, "open no browser")
	return c.withExamples(cmd,
		example{"Paste the code that Procore shows", "tokenturn connection authorize sandbox/acme"},
		example{"Accept only this user, with access to this company",
			"tokenturn connection authorize production/acme --company 4264807 --login pat@example.com"},
		example{"Receive the code at a registered redirect URI on this machine",
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
	rec, err := in.register(ctx, conn)
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
	exchange, err := consents.Prepare(ctx, conn, rec.Epoch)
	if err != nil {
		return err
	}
	working, finished := c.uninterrupted(ctx, "The code is being exchanged. Stopping now would lose the pair; "+
		"this ends by itself soon.")
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

// pasteAttempts is how often a person may paste nothing.
const pasteAttempts = 3

// pasteCode lets the person copy the code from Procore's page.
func (c *cli) pasteCode(ctx context.Context, app rotation.Application, conn token.Connection,
	flags authorizeFlags) (rotation.Consent, error) {
	verifier := token.NewSecret(oauth2.GenerateVerifier())
	address := procore.AuthorizeURL(app, procore.OutOfBand, "", oauth2.S256ChallengeFromVerifier(verifier.Reveal()))
	c.say("Open this address, sign in, and allow access:\n\n  %s\n\nThen paste what Procore shows.", address)
	if !flags.noBrowser {
		c.openBrowser(address)
	}
	if !isTerminal(c.stdin) {
		c.say("Standard input is no terminal; the code is read from it all the same.")
	}
	for attempt := 1; ; attempt++ {
		pasted, err := c.askSecret(ctx, "Code or address (not shown)")
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

// receiveCode lets the browser on this machine bring the code.
func (c *cli) receiveCode(ctx context.Context, app rotation.Application, conn token.Connection,
	flags authorizeFlags) (rotation.Consent, error) {
	redirect := flags.loopback
	switch {
	case redirect != fromApp:
	case loopback.IsLoopback(app.RedirectURI):
		redirect = app.RedirectURI
	default:
		redirect = "http://localhost" // what the Developer Portal suggests
	}
	state, verifier := token.NewSecret(newState()), token.NewSecret(oauth2.GenerateVerifier())
	receiver, err := loopback.Listen(redirect, state)
	if err != nil {
		return rotation.Consent{}, fmt.Errorf("%w; register another one, such as http://localhost:8765/callback, "+
			"and give it with --loopback=URI, or leave --loopback out and paste the code (`tokenturn serve`, "+
			"if that runs here, connects by `tokenturn connection invite %s`)", err, conn)
	}
	defer receiver.Close()
	address := procore.AuthorizeURL(app, redirect, state.Reveal(), oauth2.S256ChallengeFromVerifier(verifier.Reveal()))
	c.say("Open this address in a browser on this machine, sign in, and allow access:\n\n  %s\n\nWaiting for it to "+
		"lead back to %s, for ten minutes. If Procore shows an error instead, that redirect URI is not registered.", address,
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
			"begin again and choose Allow")
	case errors.Is(err, loopback.ErrNotAsked):
		return rotation.Consent{}, fmt.Errorf("%w, so nothing was changed; begin again, and if that goes on, "+
			"examine the app of %s in the Developer Portal", err, conn.Environment)
	case ctx.Err() != nil:
		return rotation.Consent{}, fmt.Errorf("%w; no code was exchanged and nothing was changed", errInterrupted)
	}
	return rotation.Consent{}, exitf(tryLater, "nobody came back within ten minutes, so nothing was changed; "+
		"begin again, and see that %s is registered in the Developer Portal", redirect)
}

// connected publishes the new pair and says what it connects.
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
		published = fmt.Errorf("%s is connected and its pair is safe, but not published yet; the next run does that: %w",
			conn, published)
	}
	return errors.Join(published, c.answer(a, a.print))
}

func (a authorizeAnswer) print(w io.Writer) {
	whose := "Procore user " + orDash(a.ResourceOwner)
	if a.Company != "" {
		whose += " in company " + a.Company
	}
	fmt.Fprintf(w, "%s is connected: %s, access token good until %s\n", a.Connection, whose, stamp(a.ExpiresAt))
}
