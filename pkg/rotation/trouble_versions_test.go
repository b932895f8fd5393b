package rotation_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// secretStoreBut is a rotationtest.SecretStore of which some versions cannot be read.
type secretStoreBut struct {
	*rotationtest.SecretStore
	unreadable map[string]bool
}

func (s *secretStoreBut) Version(ctx context.Context, c token.Connection, id string) (rotation.Version, error) {
	if s.unreadable[id] {
		return rotation.Version{}, errors.New("access to the KMS key that encrypted the version is denied")
	}
	return s.SecretStore.Version(ctx, c, id)
}

// oldEscrow leaves an escrowed answer of an earlier rotation in the secret store
// and returns its version id.
func (b *harness) oldEscrow(t *testing.T) string {
	t.Helper()
	time.Sleep(time.Hour)
	b.gate(rotationtest.Nth(1, "ledger.SaveResponse", before, fail))
	b.sweep(t)
	b.gate(nil)
	b.operation(t).run(2 * time.Hour)
	b.inOrder(t)
	versions, err := b.SecretStore.Versions(t.Context(), acme)
	must(t, err)
	for _, v := range versions {
		if strings.HasPrefix(v.ID, "escrow-") {
			return v.ID
		}
	}
	t.Fatal("no answer was escrowed")
	return ""
}

// withStore is a process that meets another secret store.
func (b *harness) withStore(store rotation.SecretStore) *rotation.Rotator {
	return b.rotatorBut(func(cfg *rotation.Config) { cfg.SecretStore = store })
}

// A version that can no longer be read and is older than the current pair cannot
// be its successor, and does not block the recovery of a lost answer.
func TestAnUnreadableOldVersionDoesNotBlockRecovery(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(server)
				b.connect(t)
				store := &secretStoreBut{b.SecretStore, map[string]bool{b.oldEscrow(t): true}}
				time.Sleep(10 * time.Minute)
				b.gate(rotationtest.Nth(1, "issuer.Redeem", before, fail))
				report, err := b.withStore(store).Rotate(t.Context(), acme)
				must(t, err)
				if got := report.Connections[0].Outcome; got != rotation.Unknown {
					t.Fatalf("a rotation with a lost answer ended %s", got)
				}
				b.gate(nil)
				time.Sleep(5 * time.Minute)
				report, err = b.withStore(store).Rotate(t.Context(), acme)
				must(t, err)
				if got := report.Connections[0]; got.Outcome != rotation.Rotated && got.Outcome != rotation.Recovered {
					t.Errorf("after the quiet period: %s, %s", got.Outcome, got.Detail)
				}
				b.inOrder(t)
			})
		})
	}
}

// A young version that stays unreadable may be the successor: nothing is
// presented, people are notified, and recovery goes on once it can be read.
func TestAnUnreadableYoungVersionIsANotice(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(server)
				b.connect(t)
				time.Sleep(time.Hour)
				b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
					answered := len(b.presentations()) > 0
					if answered && at.When == before && (at.Call == "ledger.SaveResponse" || at.Call == "ledger.Write") {
						return fail
					}
					return rotationtest.Fault{}
				})
				ctx, cancel := context.WithTimeout(t.Context(), functionLife)
				defer cancel()
				_, err := b.rotator().Rotate(ctx, acme)
				must(t, err)
				b.gate(nil)
				versions, err := b.SecretStore.Versions(t.Context(), acme)
				must(t, err)
				escrow := versions[len(versions)-1].ID
				store := &secretStoreBut{b.SecretStore, map[string]bool{escrow: true}}
				for range 6 {
					time.Sleep(time.Hour)
					_, err := b.withStore(store).Sweep(t.Context())
					must(t, err)
				}
				b.presentedOnce(t)
				if n := b.noticesOf(rotation.NoticeConfigError); n < 1 || n > 2 {
					t.Errorf("%d notices of the version that cannot be read, want one", n)
				}
				if n := b.noticesOf(rotation.NoticeNeedsConsent); n != 0 {
					t.Errorf("people were asked %d times for a consent", n)
				}
				b.operation(t).run(time.Hour + time.Minute)
				b.presentedOnce(t)
				b.inOrder(t)
			})
		})
	}
}

// Every version that the secret store was given counts, whatever became of the
// run that put it.
func TestEveryPutCounts(t *testing.T) {
	lost := func(m *faultScenario) { m.downAfter(1, "secrets.Promote", "ledger.").rotate(); m.calm() }
	both := func(m *faultScenario) { m.first("ledger.SaveResponse", after, fail).rotate(); m.calm() }
	putAndDie := func(call string, when rotationtest.Moment) func(m *faultScenario) {
		return func(m *faultScenario) {
			m.first(call, when, crash).rotate()
			m.calm()
		}
	}
	for name, puts := range map[string]func(m *faultScenario){
		"the process ends after the put":     putAndDie("secrets.Put", after),
		"the process ends after the move":    putAndDie("secrets.Promote", after),
		"the closing write is lost for it":   lost,
		"the answer is saved in both stores": both,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &faultScenario{harness: newHarness(rotationtest.Personality{}), t: t}
				m.connect(t)
				for range 6 {
					time.Sleep(30 * time.Minute)
					puts(m)
					time.Sleep(5 * time.Minute)
					m.sweep()
					time.Sleep(25 * time.Minute)
				}
				m.inOrder(t)
				versions, err := m.SecretStore.Versions(t.Context(), acme)
				must(t, err)
				if counted := len(m.record(t).Puts); counted < len(versions) || counted > len(versions)+6 {
					t.Errorf("%d versions were put, and %d are counted", len(versions), counted)
				}
			})
		})
	}
}
