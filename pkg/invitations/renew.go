package invitations

import (
	"context"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var _ rotation.Invitations = Renewals{}

// Renewals makes invitations to connections that have been connected before. The
// connection's pin says who may use them.
type Renewals struct {
	Store        Store
	Applications rotation.Applications
	PublicURL    string // of the handler; empty: no link can be made
}

// Renew implements rotation.Invitations. It makes no link that could not work.
func (r Renewals) Renew(ctx context.Context, rec rotation.Record, now time.Time) (token.Secret, time.Time, error) {
	app, err := r.Applications.Application(ctx, rec.Connection.Environment)
	if err != nil {
		return token.Secret{}, time.Time{}, fmt.Errorf("reading the app credentials of %s: %w", rec.Connection.Environment,
			err)
	}
	if here := r.PublicURL + "/callback/" + rec.Connection.Environment; app.RedirectURI != here {
		return token.Secret{}, time.Time{}, fmt.Errorf("links from here end at %s only, and the redirect URI in the app "+
			"credentials of %s is %s: register the first in the Developer Portal and store it with `tokenturn app set %[2]s`, "+
			"or serve the second", here, rec.Connection.Environment, app.RedirectURI)
	}
	link, made, err := New(ctx, r.Store, r.PublicURL, Invitation{Connection: rec.Connection, Epoch: rec.Epoch,
		CreatedAt: now})
	return link, made.ExpiresAt, err
}
