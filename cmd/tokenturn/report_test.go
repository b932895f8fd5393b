package main

import (
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// What a person must do soonest gives the exit code.
func TestWorst(t *testing.T) {
	for want, outcomes := range map[int][][]rotation.Outcome{
		done:     {{}, {rotation.Rotated, rotation.Fresh}},
		tryLater: {{rotation.Busy}, {rotation.Rotated, rotation.Deferred, rotation.Unknown}},
		needsConsent: {{rotation.ConsentNeeded}, {rotation.Busy, rotation.ConsentNeeded}, {rotation.ConsentNeeded,
			rotation.Busy}},
		failed: {{rotation.Failed}, {rotation.Busy, rotation.ConsentNeeded, rotation.ConfigError}, {rotation.InQuarantine,
			rotation.ConsentNeeded}},
	} {
		for _, some := range outcomes {
			var report rotation.Report
			for _, outcome := range some {
				report.Connections = append(report.Connections, rotation.ConnectionReport{Outcome: outcome})
			}
			if got := exitCode(worst(report)); got != want {
				t.Errorf("%v: exit code %d, want %d", some, got, want)
			}
		}
	}
}
