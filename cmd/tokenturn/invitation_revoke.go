package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var idForm = regexp.MustCompile(`^[0-9a-f]{4,64}$`)

func parseInvitationID(text string) (string, error) {
	if !idForm.MatchString(text) {
		return "", fmt.Errorf("%.20q is not the id of an invitation; list the invitations with: "+
			"tokenturn invitation list", text)
	}
	return text, nil
}

func (c *cli) invitationRevoke() *cobra.Command {
	return c.withExamples(verbOn(parseInvitationID, "revoke ID", "Revoke an invitation",
		`The link stops working, and a consent that was started with it cannot be finished. If it
has already connected someone, the connection stays; see "tokenturn connection disconnect".
If nobody has connected and no other invitation is left, the connection is no longer listed.
"connection invite" and "invitation list" print the id; its beginning is enough.`,
		func(ctx context.Context, _ *cobra.Command, id string) error {
			return c.with(ctx, func(in *installation) error { return c.revokeInvitation(ctx, in, id) })
		}),
		example{"Revoke an invitation", "tokenturn invitation revoke 1f3a5b7c9d0e"})
}

func (c *cli) revokeInvitation(ctx context.Context, in *installation, id string) error {
	found, err := in.invitation(ctx, id)
	if err != nil {
		return err
	}
	now := time.Now()
	if err := in.consents.RevokeInvitation(ctx, found.Hash, now); err != nil {
		return err
	}
	a := newInvitationAnswer(found, found.Epoch)
	if a.State == "used" {
		c.say("It was already used, and the connection stays. To end it: tokenturn connection disconnect %s",
			found.Connection)
	} else {
		a.State = "revoked"
		if err := in.uninvited(ctx, found.Connection, now); err != nil {
			return fmt.Errorf("the invitation is revoked, but %s may be listed as invited until it would have expired: %w",
				found.Connection, err)
		}
	}
	return c.answer(a, func(w io.Writer) { fmt.Fprintf(w, "%s to %s: %s\n", a.ID, a.Connection, a.State) })
}

// uninvited makes a connection that nobody has connected expire with the last invitation that
// is left.
func (in *installation) uninvited(ctx context.Context, conn token.Connection, now time.Time) error {
	return rotation.Uninvited(ctx, in.ledger, conn, now, func(ctx context.Context) (last time.Time, err error) {
		stored, err := in.consents.Invitations(ctx, now)
		for _, i := range stored {
			if i.Connection == conn && i.Usable(now) && i.ExpiresAt.After(last) {
				last = i.ExpiresAt
			}
		}
		return last, err
	})
}

// invitation finds the invitation with a hash that begins with id.
func (in *installation) invitation(ctx context.Context, id string) (found invitations.Invitation, err error) {
	stored, err := in.consents.Invitations(ctx, time.Now())
	if err != nil {
		return found, err
	}
	matches := 0
	for _, i := range stored {
		if strings.HasPrefix(i.Hash, id) {
			found, matches = i, matches+1
		}
	}
	switch matches {
	case 0:
		return found, exitf(notFound, "there is no invitation %s, or it has expired; list the invitations with: "+
			"tokenturn invitation list", id)
	case 1:
		return found, nil
	}
	return found, exitf(usage, "the ids of %d invitations begin with %s; enter more digits of the id", matches, id)
}
