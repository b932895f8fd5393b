package metrics

import (
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Ended implements the Observer of package consent.
func (m *Meter) Ended(c token.Connection, outcome string) {
	m.record(map[string]any{"environment": c.Environment, "outcome": outcome, "connection": c.String()},
		by("outcome", value{"Consents", count, 1}))
}

// Reused implements the Observer of package consent.
func (m *Meter) Reused(c token.Connection) {
	m.record(map[string]any{"environment": c.Environment, "connection": c.String()},
		byEnvironment(value{"StateReuses", count, 1}))
}

// HostRefused implements the Observer of package consent.
func (m *Meter) HostRefused() {
	m.record(nil, measure{[][]string{{"stack"}}, []value{{"RefusedHosts", count, 1}}})
}
