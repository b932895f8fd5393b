package rotationtest

import (
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func TestFakeLedger(t *testing.T) {
	TestLedger(t, func(*testing.T) rotation.Ledger { return &Ledger{Journal: &Journal{}} })
}

func TestRateLimiterKeepsTheContract(t *testing.T) {
	TestRateLimiter(t, func(*testing.T) rotation.RateLimiter { return &RateLimiter{} })
}

func TestNoticeClaimsKeepTheContract(t *testing.T) {
	TestNoticeClaims(t, func(*testing.T) rotation.NoticeClaims { return &NoticeClaims{} })
}

func TestFakeSecretStore(t *testing.T) {
	for name, secrets := range map[string]func() *SecretStore{
		"AWSPENDING stays":      func() *SecretStore { return &SecretStore{} },
		"AWSPENDING is dropped": func() *SecretStore { return &SecretStore{DropPending: true, Journal: &Journal{}} },
	} {
		t.Run(name, func(t *testing.T) {
			TestSecretStore(t, func(*testing.T) rotation.SecretStore { return secrets() })
		})
	}
}

func TestFakeSealer(t *testing.T) {
	TestSealer(t, func(*testing.T) (a, sameKeys, other rotation.Sealer) {
		s := NewSealer()
		return s, s.Again(), NewSealer()
	})
}
