package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// No link is created if its success could not be published, and the error says why.
func TestInvitationSaysWhyTheSecretCannotBeRestored(t *testing.T) {
	in, err := (&cli{}).openEmbedded(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.close(); err != nil {
			t.Error(err)
		}
	})
	credentials := `{"client_id":"a","client_secret":"b","redirect_uri":"` + localURL + `/callback/sandbox"}`
	if err := in.apps.Set(t.Context(), "sandbox", token.NewSecret(credentials)); err != nil {
		t.Fatal(err)
	}
	in.secrets, in.deletions = deletedSecretStore{in.secrets}, stuck{in.deletions}
	acme := token.Connection{Environment: "sandbox", Name: "acme"}
	_, _, err = in.makeInvitation(t.Context(), acme, localURL, invitation{expires: invitations.DefaultLifetime})
	if !errors.Is(err, errStuck) || !strings.Contains(err.Error(), "the secret of sandbox/acme is scheduled for "+
		"deletion and cannot be restored") {
		t.Errorf("error %v", err)
	}
	if list, err := in.invitations(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("invitations %v, %v", list, err)
	}
}

var errStuck = errors.New("secretsmanager:RestoreSecret is denied")

// deletedSecrets has every secret scheduled for deletion, and stuck lets none back.
type (
	deletedSecretStore struct{ rotation.SecretStore }
	stuck              struct{ deletions }
)

func (deletedSecretStore) Current(context.Context, token.Connection) (rotation.Version, error) {
	return rotation.Version{}, rotation.ErrSecretDeleted
}

func (stuck) Cancel(context.Context, token.Connection) error { return errStuck }
