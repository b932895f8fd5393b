package invitations

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// DefaultLifetime is how long an invitation can be used unless ExpiresAt says otherwise.
const DefaultLifetime = 72 * time.Hour

// New stores a new invitation and returns the link to send to the person
// who is to connect. The link is the only place where its secret part exists.
// Of wanted, Connection, Epoch (which the connection has now) and CreatedAt (the
// present time) are required; Expect and ReturnURL are optional, and ExpiresAt defaults to
// DefaultLifetime after CreatedAt. The connection must be registered first.
func New(ctx context.Context, store Store, publicURL string, wanted Invitation) (link token.Secret, _ Invitation,
	_ error) {
	base, err := ParsePublicURL(publicURL)
	if err != nil {
		return token.Secret{}, Invitation{}, err
	}
	if wanted.Connection.IsZero() || wanted.CreatedAt.IsZero() {
		return token.Secret{}, Invitation{}, errors.New("an invitation needs a connection and the present time")
	}
	if wanted.ExpiresAt.IsZero() {
		wanted.ExpiresAt = wanted.CreatedAt.Add(DefaultLifetime)
	}
	if !wanted.ExpiresAt.After(wanted.CreatedAt) {
		return token.Secret{}, Invitation{}, fmt.Errorf("the invitation to %s would already be expired: "+
			"give it a lifetime above zero", wanted.Connection)
	}
	secret := NewSecret()
	made := Invitation{Hash: Hash(secret), Connection: wanted.Connection, Expect: wanted.Expect,
		Epoch: wanted.Epoch, ReturnURL: wanted.ReturnURL, CreatedAt: wanted.CreatedAt.UTC(),
		ExpiresAt: wanted.ExpiresAt.UTC()}
	if err := store.CreateInvitation(ctx, made); err != nil {
		return token.Secret{}, Invitation{}, fmt.Errorf("storing the invitation to %s: %w", made.Connection, err)
	}
	return token.NewSecret(base.String() + "/connect/" + secret.Reveal()), made, nil
}
