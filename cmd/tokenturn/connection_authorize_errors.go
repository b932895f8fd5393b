package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// pasteError says what to do about input that is not a code of this environment.
func pasteError(conn token.Connection, err error) error {
	other, isOther := errors.AsType[*procore.OtherEnvironmentError](err)
	switch {
	case isOther:
		return exitf(usage, "%w; the code was not used and nothing was changed. Open the URL that is printed here, "+
			"or connect %s/%s instead", err, other.Environment, conn.Name)
	case errors.Is(err, procore.ErrDenied):
		return exitf(needsConsent, "%w, so nothing was changed; run the command again and choose Allow", err)
	}
	return exitf(usage, "%w, so nothing was changed; run the command again, and paste the code that Procore shows or the "+
		"whole URL of the page", err)
}

// codeRefused names the most likely reason. Servers answer all of them with the same error
// (RFC 6749 section 5.2, invalid_grant).
func (in *installation) codeRefused(ctx context.Context, conn token.Connection, asked time.Time, cause error) error {
	now := time.Now()
	before, err := in.lastConsent(ctx, conn)
	switch {
	case now.Sub(asked) > codeLife:
		return exitf(needsConsent, "Procore refuses the code: more than ten minutes have passed since the URL was printed, "+
			"and a code is valid for ten minutes; run the command again: %w", cause)
	case err == nil && now.Sub(before) < codeLife:
		return exitf(needsConsent, "Procore refuses the code. %s was connected %s, perhaps with the same code, and "+
			"a code works once; the connection stays as it is. To connect it again, run the command again and paste the "+
			"new code: %w", conn, distance(before, now), cause)
	}
	return exitf(needsConsent, "Procore refuses the code: it was used before, is older than ten minutes, "+
		"belongs to another URL than the one printed here, or belongs to another environment than %s; run the command "+
		"again: %w",
		conn.Environment, cause)
}

// lastConsent is the time at which a code last connected conn.
func (in *installation) lastConsent(ctx context.Context, conn token.Connection) (time.Time, error) {
	events, err := in.ledger.History(ctx, conn, 50)
	for _, e := range events {
		if e.Kind == "decided" && e.Detail == string(rotation.FromCode) {
			return e.At, err
		}
	}
	return time.Time{}, err
}

// consentError says what to do after an exchange that did not connect.
func consentError(conn token.Connection, result rotation.ConsentResult, cause error) error {
	switch result {
	case rotation.Verifying:
		return exitf(tryLater, "the token pair of %s is saved, but the consent could not be completed yet; the next "+
			"run completes it: %w", conn, cause)
	case rotation.NotInstalled:
		return exitf(tryLater, "the token pair of %s is saved, but the app is not installed in the company; ask a "+
			"Procore administrator of the company to install it; tokenturn checks again automatically: %w", conn, cause)
	case rotation.WrongIdentity:
		return fmt.Errorf("%s was not connected, because the consent is not of the expected user, company or app; "+
			"sign out of Procore and run the command again: %w", conn, cause)
	case rotation.Superseded:
		return fmt.Errorf("%s was connected or disconnected in the meantime; run the command again if you still "+
			"want to connect it: %w", conn, cause)
	case rotation.Misconfigured:
		return fmt.Errorf("the app itself was refused by Procore; check client id, secret and redirect URIs in the "+
			"Developer Portal and run tokenturn app set %s: %w", conn.Environment, cause)
	case rotation.Unavailable:
		return exitf(tryLater, "Procore could not be reached or asked to wait, so the code for %s was not used; "+
			"run the command again: %w", conn, cause)
	}
	return exitf(needsConsent, "the response for %s was lost or could not be saved, and the code with it; run the "+
		"command again: %w", conn, cause)
}
