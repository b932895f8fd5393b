package rotationtest

import (
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func TestFakeLedger(t *testing.T) {
	TestLedger(t, func(*testing.T) rotation.Ledger { return &Ledger{Journal: &Journal{}} })
}

func TestPaceKeepsTheContract(t *testing.T) {
	TestPace(t, func(*testing.T) rotation.Pace { return &Pace{} })
}

func TestAnnouncementsKeepTheContract(t *testing.T) {
	TestAnnouncements(t, func(*testing.T) rotation.Announcements { return &Announcements{} })
}

func TestFakeVault(t *testing.T) {
	for name, vault := range map[string]func() *Vault{
		"AWSPENDING stays":      func() *Vault { return &Vault{} },
		"AWSPENDING is dropped": func() *Vault { return &Vault{DropPending: true, Journal: &Journal{}} },
	} {
		t.Run(name, func(t *testing.T) {
			TestVault(t, func(*testing.T) rotation.Vault { return vault() })
		})
	}
}

func TestFakeSealer(t *testing.T) {
	TestSealer(t, func(*testing.T) (a, sameKeys, other rotation.Sealer) {
		s := NewSealer()
		return s, s.Again(), NewSealer()
	})
}
