package rotation_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

var update = flag.Bool("update", false, "write the golden traces; read the diff before committing it")

// TestTraces compares every effect of the ordinary flows, in order, with what
// testdata says. The diff shows what a change of the protocol means.
func TestTraces(t *testing.T) {
	for name, happens := range map[string]func(*faultScenario) rotation.Outcome{
		"rotation": (*faultScenario).sweep,
		"lost-answer": func(m *faultScenario) rotation.Outcome {
			m.Issuer.Personality.Overlap = true
			m.first("issuer.Redeem", after, fail).sweep()
			time.Sleep(4 * time.Minute)
			return m.sweep()
		},
		"ledger-down": func(m *faultScenario) rotation.Outcome {
			m.downAfter(1, "issuer.Redeem", "ledger.").sweep()
			time.Sleep(4 * time.Minute)
			return m.calm().sweep()
		},
		"consent-during-rotation": func(m *faultScenario) rotation.Outcome {
			return m.during(1, "issuer.Redeem", after, func() { m.consentAgain() }).sweep()
		},
		"disconnect": (*faultScenario).disconnect,
	} {
		t.Run(name, func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, 1) // version ids are hashes of sealed bytes
			var got string
			synctest.Test(t, func(t *testing.T) {
				m := &faultScenario{harness: newHarness(rotationtest.Personality{}), t: t}
				m.connect(t)
				time.Sleep(time.Hour)
				happens(m)
				got = m.Journal.String()
			})
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				must(t, os.MkdirAll("testdata", 0o755))
				must(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			must(t, err)
			if got != string(want) {
				t.Errorf("the trace is not that of %s (`go test -run TestTraces -update` writes it again):\n%s", golden, got)
			}
		})
	}
}
