package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionForget() *cobra.Command {
	var yes bool
	cmd := onConnection(token.ParseConnection, "forget ENV/NAME",
		"Delete the row and the history of a connection that is not in use",
		`Deletes everything that tokenturn stores about a connection: its row and its history. Its
invitations stop working. The name can be used again for a new connection. tokenturn then
no longer knows which refresh tokens this connection has spent.

Only a connection that nobody can use any more can be forgotten: nobody has consented to
it, or it is disconnected, its tokens are revoked, no response can still arrive, and its
secret is deleted. Otherwise nothing is changed, and the message says what is left. On one
machine, a secret that is scheduled for deletion is deleted now: "tokenturn connection
undo" can no longer restore it.

Prompts for the connection's name unless you add --yes. Exits with 5 if a part must wait.`,
		func(ctx context.Context, _ *cobra.Command, conn token.Connection) error {
			return c.with(ctx, func(in *installation) error { return c.forget(ctx, in, conn, yes) })
		})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not prompt for the name")
	return c.withExamples(cmd,
		example{"Forget a name that was a mistake, after a prompt for it", "tokenturn connection forget sandbox/acmee"},
		example{"Forget it without a prompt", "tokenturn connection forget sandbox/acmee --yes"})
}

// forgetAnswer is what `connection forget --json` answers.
type forgetAnswer struct {
	Connection token.Connection `json:"connection"`
	// InvitationsRevoked is how many invitations could still be used.
	InvitationsRevoked int `json:"invitations_revoked"`
	// SecretDeleted: its secret, which could still be restored, was deleted.
	SecretDeleted bool `json:"secret_deleted,omitempty"`
}

// deletionEnder deletes a secret that is scheduled for deletion before its time. AWS can too,
// but nobody needs that permission for anything else, so tokenturn does not ask for it.
type deletionEnder interface {
	End(ctx context.Context, c token.Connection) error
}

func (c *cli) forget(ctx context.Context, in *installation, conn token.Connection, yes bool) error {
	rec, responses, err := in.ledger.Load(ctx, conn)
	if err != nil {
		return err
	}
	if rec.Revision == "" && len(responses) == 0 {
		events, err := in.ledger.History(ctx, conn, 1)
		if err != nil {
			return err
		}
		if len(events) == 0 { // otherwise an interrupted forget is to be finished
			return in.unknown(ctx, conn)
		}
	}
	a := forgetAnswer{Connection: conn}
	if a.SecretDeleted, err = in.forgettable(ctx, rec, nil, time.Now()); err != nil {
		return err
	}
	lost := "The history of %s"
	if a.SecretDeleted {
		lost = "The history and the secret of %s"
	}
	if err := c.confirm(ctx, conn.String(), yes, fmt.Sprintf(lost+" cannot be restored. "+
		"Type its name to forget it", conn)); err != nil {
		return err
	}
	ctx, finished := c.uninterrupted(ctx, finishingFirst)
	defer finished()
	if len(responses) > 0 || !rec.SearchAt.IsZero() {
		if rec, responses, err = in.finish(ctx, conn); err != nil {
			return err
		}
		if a.SecretDeleted, err = in.forgettable(ctx, rec, responses, time.Now()); err != nil {
			return err
		}
	}
	if a.InvitationsRevoked, err = in.revokeInvitations(ctx, conn); err != nil {
		return err
	}
	if a.SecretDeleted {
		if err := in.deletions.(deletionEnder).End(ctx, conn); err != nil {
			return fmt.Errorf("%w; %s is not forgotten", err, conn)
		}
	}
	switch err := in.ledger.Remove(ctx, rec); {
	case errors.Is(err, rotation.ErrConflict):
		return exitf(tryLater, "%s changed meanwhile and is not forgotten; run the same command again", conn)
	case err != nil:
		return fmt.Errorf("%w; run the same command again", err)
	}
	return c.answer(a, func(w io.Writer) {
		if a.SecretDeleted {
			fmt.Fprintf(w, "%s is forgotten: its row, its history and its secret are deleted.\n", conn)
		} else {
			fmt.Fprintf(w, "%s is forgotten: its row and its history are deleted.\n", conn)
		}
		if a.InvitationsRevoked > 0 {
			fmt.Fprintf(w, "Revoked: %s.\n", counted(a.InvitationsRevoked, "invitation", "invitations"))
		}
	})
}

// forgettable returns nil if nothing of a connection is in use, and otherwise what is left
// to do. The responses are those that a run could not revoke. scheduled: there is a secret,
// which is scheduled for deletion and can be deleted now.
func (in *installation) forgettable(ctx context.Context, rec rotation.Record, responses []rotation.TokenResponse,
	now time.Time) (scheduled bool, err error) {
	conn := rec.Connection
	if err := rec.CheckStack(in.settings.Stack); err != nil {
		return false, err
	}
	switch {
	case rec.Status == rotation.Active, rec.Status == rotation.NeedsConsent:
		return false, fmt.Errorf("%s is %s, so its tokens may work; nothing was changed; disconnect it first with: "+
			"tokenturn connection disconnect %[1]s", conn, rec.Status)
	case len(rec.Attempts()) > 0:
		return false, exitf(tryLater, "a refresh of %s is in progress; nothing was changed; run the same command again later",
			conn)
	case rec.SearchAt.After(now):
		return false, exitf(tryLater, "a response for %s may still arrive, so tokenturn keeps its row; nothing was changed; "+
			"run the same command again after %s", conn, stamp(rec.SearchAt))
	case len(responses) > 0:
		return false, exitf(tryLater, "not revoked yet: %s of %s; nothing was deleted; the next run tries again, and so "+
			"does the same command", counted(len(responses), "pair", "pairs"), conn)
	}
	_, canEnd := in.deletions.(deletionEnder)
	switch _, err := in.secrets.Current(ctx, conn); {
	case errors.Is(err, rotation.ErrNoSecret):
		return false, nil
	case errors.Is(err, rotation.ErrSecretDeleted) && canEnd:
		return true, nil
	case errors.Is(err, rotation.ErrSecretDeleted):
		return false, exitf(tryLater, "the secret of %s is scheduled for deletion and can still be restored; nothing was "+
			"changed; run the same command again when it is deleted, 7 to 30 days after the disconnection, or delete it now "+
			"with: aws secretsmanager delete-secret --force-delete-without-recovery --secret-id %s/connection/%[1]s", conn,
			in.secretPrefix)
	case err != nil && !errors.Is(err, rotation.ErrNoVersion):
		return false, err
	}
	return false, fmt.Errorf("%s still has a secret; nothing was changed; schedule its deletion with: "+
		"tokenturn connection disconnect %[1]s", conn)
}

// finish revokes and searches for what an ended connection may have left.
func (in *installation) finish(ctx context.Context, conn token.Connection) (rotation.Record, []rotation.TokenResponse,
	error) {
	rotator, err := in.rotator()
	if err == nil {
		_, err = rotator.Publish(ctx, conn)
	}
	if err != nil {
		return rotation.Record{}, nil, err
	}
	return in.ledger.Load(ctx, conn)
}

// revokeInvitations revokes the connection's invitations that could still be used, and
// returns their number.
func (in *installation) revokeInvitations(ctx context.Context, conn token.Connection) (revoked int, err error) {
	now := time.Now()
	stored, err := in.consents.Invitations(ctx, now)
	for _, i := range stored {
		if err == nil && i.Connection == conn && i.Usable(now) {
			revoked++
			err = in.consents.RevokeInvitation(ctx, i.Hash, now)
		}
	}
	return revoked, err
}
