package rotation_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestTheSecretStoreIsPutRight(t *testing.T) {
	edited := token.NewSecret(`{"hello":"operator"}`)
	tests := []struct {
		name    string
		disturb func(t *testing.T, b *harness)
		outcome rotation.Outcome
		notices []string
	}{
		{"edited by hand", func(t *testing.T, b *harness) { must(t, b.SecretStore.Edit(t.Context(), acme, edited)) },
			rotation.Rotated, []string{rotation.NoticeDrift}},
		{"rolled back", func(t *testing.T, b *harness) {
			must(t, b.SecretStore.RollBack(t.Context(), acme, b.SecretStore.Label(acme, "AWSPREVIOUS")))
		},
			rotation.Rotated, []string{rotation.NoticeDrift}},
		{"deleted for good", func(_ *testing.T, b *harness) { b.SecretStore.Purge(acme) }, rotation.Rotated,
			[]string{rotation.NoticeDrift}},
		{"scheduled for deletion", func(_ *testing.T, b *harness) { b.SecretStore.Delete(acme) }, rotation.ConfigError,
			[]string{rotation.NoticeConfigError}},
		{"of another stack", func(t *testing.T, b *harness) {
			doc, err := b.read(t.Context())
			must(t, err)
			doc.Stack = "other"
			value, err := doc.Encode()
			must(t, err)
			must(t, b.SecretStore.Edit(t.Context(), acme, value))
		}, rotation.ConfigError, []string{rotation.NoticeConfigError}},
		{"a forged later generation", func(t *testing.T, b *harness) {
			doc, err := b.read(t.Context())
			must(t, err)
			doc.Generation += 5
			value, err := doc.Encode()
			must(t, err)
			must(t, b.SecretStore.Edit(t.Context(), acme, value))
		}, rotation.Rotated, []string{rotation.NoticeDrift}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				b.rotate(t)
				test.disturb(t, b)
				time.Sleep(time.Hour)
				if report := b.sweep(t); report.Outcomes[test.outcome] != 1 {
					t.Errorf("outcomes %v, want %s: %+v\n%s", report.Outcomes, test.outcome, report, b.Journal.String())
				}
				if test.outcome == rotation.Rotated {
					if err := b.works(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if kinds := b.notices(); !slices.Equal(kinds, test.notices) {
					t.Errorf("notices %v, want %v", kinds, test.notices)
				}
				for fp, n := range b.presentations() {
					if n != 1 {
						t.Errorf("refresh token %s was presented %d times", fp, n)
					}
				}
			})
		})
	}
}

func TestARestoredLedgerTakesOverWhatTheSecretStoreShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{KillFamily: true})
		b.connect(t)
		restore := b.Ledger.Backup()
		for range 3 {
			time.Sleep(time.Hour)
			b.sweep(t)
		}
		restore()
		report := b.sweep(t)
		if report.Outcomes[rotation.Recovered]+report.Outcomes[rotation.Rotated] != 1 {
			t.Errorf("%+v\n%s", report, b.Journal.String())
		}
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal.String())
		}
		if rec := b.record(t); rec.Generation < 3 {
			t.Errorf("generation %d after taking over, want 3 or more", rec.Generation)
		}
	})
}
