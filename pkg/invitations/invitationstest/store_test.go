package invitationstest

import (
	"testing"

	"github.com/tokenturn/tokenturn/pkg/invitations"
)

func TestFakeStore(t *testing.T) {
	TestStore(t, func(*testing.T) invitations.Store { return &Store{} })
}
