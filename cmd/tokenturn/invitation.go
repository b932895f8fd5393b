package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) invitationCommand() *cobra.Command {
	return c.noun("invitation", "Manage invitations to connect",
		"An invitation is a link that `connection invite` created. Its id is the beginning of its\n"+
			"hash; the link itself is not stored.",
		c.invitationList(), c.invitationRevoke())
}

// invitationAnswer describes one invitation. Nothing in it is secret.
type invitationAnswer struct {
	ID         string            `json:"id"`
	Connection token.Connection  `json:"connection"`
	Expected   rotation.Identity `json:"expected"`
	State      string            `json:"state"` // open, used, revoked, started_out or ended
	Starts     int               `json:"starts"`
	MaxStarts  int               `json:"max_starts"`
	CreatedAt  time.Time         `json:"created_at"`
	ExpiresAt  time.Time         `json:"expires_at"`
}

// idLength is the length of an invitation's id, in digits of its hash: 48 bits.
const idLength = 12

func invitationID(i invitations.Invitation) string { return i.Hash[:min(idLength, len(i.Hash))] }

func newInvitationAnswer(i invitations.Invitation, epoch int64) invitationAnswer {
	a := invitationAnswer{ID: invitationID(i), Connection: i.Connection, Expected: i.Expect, State: "open",
		Starts: i.Starts, MaxStarts: invitations.MaxStarts, CreatedAt: i.CreatedAt, ExpiresAt: i.ExpiresAt}
	switch {
	case !i.UsedAt.IsZero():
		a.State = "used"
	case !i.RevokedAt.IsZero():
		a.State = "revoked"
	case i.Epoch != epoch: // connected or disconnected otherwise since then
		a.State = "ended"
	case i.Starts >= invitations.MaxStarts:
		a.State = "started_out"
	}
	return a
}

func (in *installation) invitations(ctx context.Context) ([]invitationAnswer, error) {
	stored, err := in.consents.Invitations(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	records, err := in.ledger.List(ctx)
	if err != nil {
		return nil, err
	}
	epochs := map[token.Connection]int64{}
	for _, r := range records {
		epochs[r.Connection] = r.Epoch
	}
	list := make([]invitationAnswer, len(stored))
	for n, i := range stored {
		list[n] = newInvitationAnswer(i, epochs[i.Connection])
	}
	return list, nil
}
