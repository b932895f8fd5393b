package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) invitationCommand() *cobra.Command {
	return noun("invitation", "Links by which people connect",
		"An invitation is a link that `connection invite` made. It is known here by the\nbeginning of its hash; "+
			"the link itself is kept nowhere.", "",
		c.invitationList(), c.invitationRevoke())
}

// invitationAnswer is what is told of one invitation. Nothing in it is secret.
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

// idLength is how much of its hash names an invitation: 48 bits.
const idLength = 12

func invitationID(i consent.Invitation) string { return i.Hash[:min(idLength, len(i.Hash))] }

func newInvitationAnswer(i consent.Invitation, epoch int64) invitationAnswer {
	a := invitationAnswer{ID: invitationID(i), Connection: i.Connection, Expected: i.Expect, State: "open",
		Starts: i.Starts, MaxStarts: consent.MaxStarts, CreatedAt: i.CreatedAt, ExpiresAt: i.ExpiresAt}
	switch {
	case !i.UsedAt.IsZero():
		a.State = "used"
	case !i.RevokedAt.IsZero():
		a.State = "revoked"
	case i.Epoch != epoch: // connected or disconnected by other means since
		a.State = "ended"
	case i.Starts >= consent.MaxStarts:
		a.State = "started_out"
	}
	return a
}

func (c *cli) invitationList() *cobra.Command {
	return verb("list", "List the invitations that have not expired",
		`States: open; used (it connected); revoked; started_out (started as often as it
may be); ended (the connection was connected or disconnected otherwise since).`,
		`  tokenturn invitation list
  tokenturn --json invitation list | jq -r '.[] | select(.state == "open").id'`,
		func(ctx context.Context, _ *cobra.Command) error {
			return c.with(ctx, func(in *installation) error {
				list, err := in.invitations(ctx)
				if err != nil {
					return err
				}
				if len(list) == 0 {
					c.say("There are no invitations; make one with: tokenturn connection invite ENV/NAME")
				}
				return c.answer(list, func(w io.Writer) { printInvitations(w, list, time.Now()) })
			})
		})
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

func printInvitations(w io.Writer, list []invitationAnswer, now time.Time) {
	if len(list) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tCONNECTION\tEXPECTED\tSTATE\tSTARTS\tEXPIRES")
	for _, a := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d of %d\t%s\n", a.ID, a.Connection, expected(a.Expected), a.State, a.Starts,
			a.MaxStarts, when(a.ExpiresAt, now))
	}
	t.Flush()
}

// expected says in a table who is to consent.
func expected(who rotation.Identity) string {
	var parts []string
	if who.Login != "" {
		parts = append(parts, who.Login)
	}
	if who.Company != "" {
		parts = append(parts, "company "+who.Company)
	}
	if who.Repin {
		parts = append(parts, "repin")
	}
	return orDash(strings.Join(parts, ", "))
}

var idForm = regexp.MustCompile(`^[0-9a-f]{4,64}$`)

func parseInvitationID(text string) (string, error) {
	if !idForm.MatchString(text) {
		return "", fmt.Errorf("%.20q is no id of an invitation; see: tokenturn invitation list", text)
	}
	return text, nil
}

func (c *cli) invitationRevoke() *cobra.Command {
	return verbOn(parseInvitationID, "revoke ID", "Take an invitation back",
		`From then on the link does not work, and what was started with it is not finished.
What it has connected already stays; see "tokenturn connection disconnect". The id is
what "connection invite" and "invitation list" say, or the beginning of it.`,
		`  tokenturn invitation revoke 1f3a5b7c9d0e`,
		func(ctx context.Context, _ *cobra.Command, id string) error {
			return c.with(ctx, func(in *installation) error { return c.revokeInvitation(ctx, in, id) })
		})
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
