package rotation_test

import (
	"context"
	"slices"
	"sync"
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

// A secret that is changed by hand right after a rotation is put right by the next run. No
// other run is about to do that.
func TestASecretThatIsEditedAfterARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		b.rotate(t)
		must(t, b.SecretStore.Edit(t.Context(), acme, token.NewSecret(`{"hello":"operator"}`)))
		if r := b.rotate(t); r.Outcome != rotation.Rotated {
			t.Errorf("outcome %s", r.Outcome)
		}
		if err := b.works(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What a run saw in the secret before its POST may have changed when it publishes. It then
// looks again.
func TestTheSecretMayChangeDuringTheRefresh(t *testing.T) {
	edited := token.NewSecret(`{"hello":"operator"}`)
	for name, disturb := range map[string]func(t *testing.T, b *harness){
		"edited by hand": func(t *testing.T, b *harness) { must(t, b.SecretStore.Edit(t.Context(), acme, edited)) },
		"rolled back": func(t *testing.T, b *harness) {
			must(t, b.SecretStore.RollBack(t.Context(), acme, b.SecretStore.Label(acme, "AWSPREVIOUS")))
		},
		"deleted for good": func(_ *testing.T, b *harness) { b.SecretStore.Purge(acme) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				b.rotate(t)
				time.Sleep(time.Hour)
				disturbed := false
				b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
					if at.Call == "issuer.Redeem" && !disturbed {
						disturbed = true
						disturb(t, b)
					}
					return rotationtest.Fault{}
				})
				if report := b.sweep(t); !disturbed || report.Outcomes[rotation.Rotated] != 1 {
					t.Errorf("outcomes %v: %+v\n%s", report.Outcomes, report, b.Journal.String())
				}
				if err := b.works(t.Context()); err != nil {
					t.Error(err)
				}
				if kinds := b.notices(); name != "rolled back" && !slices.Equal(kinds, []string{rotation.NoticeDrift}) {
					t.Errorf("notices %v, want one of the drift", kinds)
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

// A rotation loads the row once and reads the secret once. Runs read app credentials and
// make a data key once for all connections, which begin at the same time, and reserve
// their redeems together.
func TestCallsOfARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const connections = 10
		b := newHarness(rotationtest.Personality{})
		b.backlog(t, connections)
		b.sweep(t) // seals all pairs with one data key
		time.Sleep(time.Hour)
		calls := map[string]int{}
		var mu sync.Mutex
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			if at.When == rotationtest.Before {
				time.Sleep(time.Millisecond) // all that can be at the same call are there
				mu.Lock()
				defer mu.Unlock()
				calls[at.Call]++
			}
			return rotationtest.Fault{}
		})
		if report := b.sweep(t); report.Outcomes[rotation.Rotated] != connections {
			t.Fatalf("outcomes %v: %+v", report.Outcomes, report)
		}
		for call, want := range map[string]int{"ledger.Due": 1, "ratelimiter.Reserve": 1, "applications.Application": 1,
			"sealer.DataKey": 1, "sealer.Unwrap": 1, "ledger.Load": connections, "secrets.Current": connections,
			"ledger.SaveResponse": connections, "ledger.Write": 3 * connections, "secrets.Put": connections,
			"secrets.Promote": connections, "issuer.Redeem": connections} {
			if calls[call] != want {
				t.Errorf("%d calls of %s, want %d", calls[call], call, want)
			}
		}
	})
}

// A read that hangs and that all connections of a run share costs only the one that made it.
func TestOneReadThatHangsDefersOneAtMost(t *testing.T) {
	for _, call := range []string{"sealer.DataKey", "sealer.Unwrap", "applications.Application"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const connections = 8
				b := newHarness(rotationtest.Personality{})
				b.backlog(t, connections)
				b.sweep(t) // seals all pairs with one data key
				time.Sleep(time.Hour)
				b.gate(rotationtest.Nth(1, call, rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Slow,
					For: time.Minute}))
				if report := b.sweep(t); report.Outcomes[rotation.Rotated] < connections-1 {
					t.Errorf("outcomes %v, want all rotated but one", report.Outcomes)
				}
				time.Sleep(time.Minute) // the call ends
			})
		})
	}
}

// A connection that is disconnected while it waits for its permit is no configuration error.
func TestAConnectionEndsWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.backlog(t, 40)
		b.sweep(t)
		time.Sleep(time.Hour)
		loads, before := 0, len(b.notices())
		var mu sync.Mutex
		b.gate(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
			mu.Lock()
			defer mu.Unlock()
			if at.Call != "ledger.Load" || at.When != rotationtest.After {
				return rotationtest.Fault{}
			}
			if loads++; loads == 36 { // it waits some seconds for its permit now
				go func() {
					time.Sleep(time.Second / 2)
					_, err := b.rotator().Disconnect(rotationtest.WithActor(t.Context(), "operator"), at.Connection)
					must(t, err)
					b.SecretStore.Delete(at.Connection)
				}()
			}
			return rotationtest.Fault{}
		})
		if report := b.sweep(t); report.Outcomes[rotation.Rotated] != 39 {
			t.Errorf("outcomes %v, want all rotated but one", report.Outcomes)
		}
		if kinds := b.notices()[before:]; len(kinds) > 0 {
			t.Errorf("notices %v, want none", kinds)
		}
	})
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
