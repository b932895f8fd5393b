package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/consent"
)

var idForm = regexp.MustCompile(`^[0-9a-f]{4,64}$`)

func parseInvitationID(text string) (string, error) {
	if !idForm.MatchString(text) {
		return "", fmt.Errorf("%.20q is no id of an invitation; see: tokenturn invitation list", text)
	}
	return text, nil
}

func (c *cli) invitationRevoke() *cobra.Command {
	return c.withExamples(verbOn(parseInvitationID, "revoke ID", "Take an invitation back",
		`From then on the link does not work, and what was started with it is not finished.
What it has connected already stays; see "tokenturn connection disconnect". The id is
what "connection invite" and "invitation list" say, or the beginning of it.`,
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
		c.say("It was used before; the connection stays. To end that: tokenturn connection disconnect %s", found.Connection)
	} else {
		a.State = "revoked"
	}
	return c.answer(a, func(w io.Writer) { fmt.Fprintf(w, "%s to %s: %s\n", a.ID, a.Connection, a.State) })
}

// invitation finds the one whose hash begins with id.
func (in *installation) invitation(ctx context.Context, id string) (found consent.Invitation, err error) {
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
		return found, exitf(notFound, "there is no invitation %s, or it has expired; see: tokenturn invitation list", id)
	case 1:
		return found, nil
	}
	return found, exitf(usage, "%d invitations begin with %s; give more of the id", matches, id)
}
