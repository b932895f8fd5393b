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

// pasteError says what to do about a text that is no code of this environment.
func pasteError(conn token.Connection, err error) error {
	other, isOther := errors.AsType[*procore.OtherEnvironmentError](err)
	switch {
	case isOther:
		return exitf(usage, "%w; it was not presented and nothing was changed. Open the address that is printed here, "+
			"or connect %s/%s instead", err, other.Environment, conn.Name)
	case errors.Is(err, procore.ErrDenied):
		return exitf(needsConsent, "%w, so nothing was changed; begin again and choose Allow", err)
	}
	return exitf(usage, "%w, so nothing was changed; begin again, and paste the code that Procore shows or the whole "+
		"address of the page", err)
}

// codeRefused says the likeliest reason. Servers give all of them one answer
// (RFC 6749 section 5.2, invalid_grant).
func (in *installation) codeRefused(ctx context.Context, conn token.Connection, asked time.Time, cause error) error {
	now := time.Now()
	before, err := in.lastConsent(ctx, conn)
	switch {
	case now.Sub(asked) > codeLife:
		return exitf(needsConsent, "Procore refuses the code: more than ten minutes have passed since the address was "+
			"printed, and a code lives ten minutes; begin again: %w", cause)
	case err == nil && now.Sub(before) < codeLife:
		return exitf(needsConsent, "Procore refuses the code. %s was connected %s, perhaps with this very code, "+
			"and each works once; what is connected stays so. If it is to be connected anew, begin again and paste the new "+
			"code: %w", conn, distance(before, now), cause)
	}
	return exitf(needsConsent, "Procore refuses the code: it was used before, is older than ten minutes, "+
		"is from another address than the one printed here, or is from another environment than %s; begin again: %w",
		conn.Environment, cause)
}

// lastConsent is when a code last connected conn.
func (in *installation) lastConsent(ctx context.Context, conn token.Connection) (time.Time, error) {
	events, err := in.ledger.History(ctx, conn, 50)
	for _, e := range events {
		if e.Kind == "decided" && e.Detail == string(rotation.FromCode) {
			return e.At, err
		}
	}
	return time.Time{}, err
}

// consentError says what to do about an exchange that did not connect.
func consentError(conn token.Connection, result rotation.ConsentResult, cause error) error {
	switch result {
	case rotation.Verifying:
		return exitf(tryLater, "the pair is saved, but whose it is could not be checked yet; the next run does that: %w",
			cause)
	case rotation.NotInstalled:
		return exitf(tryLater, "the pair of %s is saved, and the app is not installed in the company: "+
			"have a Procore administrator of the company install it; the next runs look again by themselves: %w", conn, cause)
	case rotation.WrongIdentity:
		return fmt.Errorf("%s was not connected, because somebody else allowed it than was expected; "+
			"sign out of Procore and begin again: %w", conn, cause)
	case rotation.Superseded:
		return fmt.Errorf("%s was connected or disconnected by somebody else meanwhile; begin again if that is still "+
			"wanted: %w", conn, cause)
	case rotation.Misconfigured:
		return fmt.Errorf("Procore refuses the app itself; check client id, secret and redirect URIs in the Developer "+
			"Portal and run tokenturn app set %s: %w", conn.Environment, cause)
	case rotation.Unavailable:
		return exitf(tryLater, "Procore could not be asked; the code was not used, begin again: %w", cause)
	}
	return exitf(needsConsent, "the answer was lost or could not be kept, and the code with it; begin again: %w", cause)
}
