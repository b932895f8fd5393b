package embedded_test

import (
	"testing"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/invitations/invitationstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

func TestLedgerContract(t *testing.T) {
	rotationtest.TestLedger(t, func(t *testing.T) rotation.Ledger { return openStore(t, t.TempDir()).Ledger() })
}

func TestSecretStoreContract(t *testing.T) {
	rotationtest.TestSecretStore(t, func(t *testing.T) rotation.SecretStore {
		return openStore(t,
			t.TempDir()).SecretStore()
	})
}

func TestSealerContract(t *testing.T) {
	rotationtest.TestSealer(t, func(t *testing.T) (a, sameKeys, other rotation.Sealer) {
		dir := t.TempDir()
		return openStore(t, dir).Sealer(), openStore(t, dir).Sealer(), openStore(t, t.TempDir()).Sealer()
	})
}

func TestConsentStoreContract(t *testing.T) {
	invitationstest.TestStore(t, func(t *testing.T) invitations.Store { return openStore(t, t.TempDir()).Consents() })
}
