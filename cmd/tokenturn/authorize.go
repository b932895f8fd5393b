package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionAuthorize() *cobra.Command {
	var expect rotation.Identity
	cmd := onConnection(token.ParseConnection, "authorize ENV/NAME", "Connect by pasting a code, without a public address",
		`Prints the address of Procore's authorization page. Open it, allow access, and
paste what Procore shows: the code, or the whole address of the page. Nothing of it
appears on the screen. The app must have the redirect URI
`+procore.OutOfBand+` in the Developer Portal.

The code is read from standard input only, where no other user of the machine sees
it. It is good for ten minutes and for one use.`,
		`  tokenturn connection authorize sandbox/acme
  tokenturn connection authorize production/acme --company 4264807 --login pat@example.com`,
		func(ctx context.Context, cmd *cobra.Command, conn token.Connection) error {
			if err := checkExpected(cmd, expect); err != nil {
				return err
			}
			return c.withNew(ctx, func(in *installation) error { return c.authorize(ctx, in, conn, expect) })
		})
	expectFlags(cmd, &expect)
	return cmd
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

func (c *cli) authorize(ctx context.Context, in *installation, conn token.Connection, expect rotation.Identity) error {
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
	if err := checkPin(rec, expect); err != nil {
		return err
	}
	verifier := token.NewSecret(oauth2.GenerateVerifier())
	c.say("Open this address, sign in, and allow access:\n\n  %s\n\nThen paste what Procore shows.",
		procore.AuthorizeURL(app, procore.OutOfBand, "", oauth2.S256ChallengeFromVerifier(verifier.Reveal())))
	pasted, err := c.askSecret(ctx, "Code or address (not shown)")
	if err != nil {
		return err
	}
	code, err := pastedCode(pasted)
	if err != nil {
		return err
	}
	exchange, err := consents.Prepare(ctx, conn, rec.Epoch)
	if err != nil {
		return err
	}
	result, err := exchange.Redeem(ctx, rotation.Consent{Code: code, RedirectURI: procore.OutOfBand, Verifier: verifier, Expect: expect})
	if result != rotation.Connected {
		return consentError(conn, result, err)
	}
	return c.connected(ctx, in, conn)
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
		published = fmt.Errorf("%s is connected and its pair is safe, but not published yet; the next run does that: %w", conn, published)
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

// consentError says what to do about an exchange that did not connect.
func consentError(conn token.Connection, result rotation.ConsentResult, cause error) error {
	switch result {
	case rotation.Verifying:
		return exitf(tryLater, "the pair is saved, but whose it is could not be checked yet; the next run does that: %w", cause)
	case rotation.WrongIdentity:
		return fmt.Errorf("%s was not connected, because somebody else allowed it than was expected; sign out of Procore and begin again: %w", conn, cause)
	case rotation.CodeRefused:
		return exitf(needsConsent, "Procore refuses the code: it was used before, is older than ten minutes, or belongs to another client id; begin again: %w", cause)
	case rotation.Superseded:
		return fmt.Errorf("%s was connected or disconnected by somebody else meanwhile; begin again if that is still wanted: %w", conn, cause)
	case rotation.Misconfigured:
		return fmt.Errorf("Procore refuses the app itself; check client id, secret and redirect URIs in the Developer Portal and run tokenturn app set %s: %w", conn.Environment, cause)
	case rotation.Unavailable:
		return exitf(tryLater, "Procore could not be asked; the code was not used, begin again: %w", cause)
	}
	return exitf(needsConsent, "the answer was lost, and the code with it; begin again: %w", cause)
}

// pastedCode finds the authorization code in what a person copied: the code
// itself, code=..., the address of the page that shows it (Doorkeeper's
// /oauth/authorize/native?code=CODE, before 4.3 /oauth/authorize/CODE), with
// spaces and quotes around it. The error contains nothing of the text.
func pastedCode(pasted token.Secret) (token.Secret, error) {
	text := strings.Trim(pasted.Reveal(), " \t\r\n\"'`<>")
	code := text
	switch u, err := url.Parse(text); {
	case err == nil && (u.Scheme == "http" || u.Scheme == "https"):
		query := u.Query()
		if query.Has("error") {
			return token.Secret{}, exitf(needsConsent, "that address says that access was not allowed; begin again and choose Allow")
		}
		code = query.Get("code")
		if before, last, found := cutLast(u.Path, "/"); code == "" && found && strings.HasSuffix(before, "/oauth/authorize") {
			code = last
		}
	case strings.HasPrefix(text, "code="):
		query, err := url.ParseQuery(text)
		if err != nil {
			return token.Secret{}, errNoCode
		}
		code = query.Get("code")
	}
	code = strings.Trim(code, " \"'")
	if code == "" || code == "native" || len(code) > 2048 || strings.ContainsFunc(code, func(r rune) bool { return !codeCharacter(r) }) {
		return token.Secret{}, errNoCode
	}
	return token.NewSecret(code), nil
}

var errNoCode = exitf(usage, "there is no authorization code in that; paste the code that Procore shows, or the whole address of the page")

// codeCharacter accepts visible ASCII (RFC 6749 appendix A.11) without what
// shows that something else was pasted.
func codeCharacter(r rune) bool {
	return r > ' ' && r <= '~' && !strings.ContainsRune("\"'\\<>{}?&", r)
}

func cutLast(text, sep string) (before, after string, found bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(sep):], true
}
