package rotation

import (
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Report is the answer to one request. It contains no secrets.
type Report struct {
	Op          string             `json:"op"`
	Due         int                `json:"due"`
	Outcomes    map[Outcome]int    `json:"outcomes"`
	Connections []ConnectionReport `json:"connections"`
	HandedOn    int                `json:"handed_on,omitempty"` // how many of those due were left to the next sweep
	Duration    Milliseconds       `json:"duration_ms"`
	// Skipped: a follow-up sweep that left the work to another one. It does not show that sweeps work.
	Skipped bool `json:"-"`
}

// Milliseconds is a duration that JSON shows as a whole number of milliseconds.
type Milliseconds int64

// ConnectionReport says what a run did for one connection, and the state it left.
type ConnectionReport struct {
	Connection token.Connection `json:"connection"`
	Outcome    Outcome          `json:"outcome"`
	Epoch      int64            `json:"epoch,omitempty"`
	Generation int64            `json:"generation,omitempty"`
	ExpiresAt  time.Time        `json:"expires_at,omitzero"` // of the access token
	RetryAt    time.Time        `json:"retry_at,omitzero"`
	// what happened and what to do, where the outcome does not say it
	Detail string `json:"detail,omitempty"`

	// For metrics only. Versions is how many versions the secret got in the last 24
	// hours. Unpublished: the secret does not show the current pair, and no other run is
	// about to publish it. Lapsed is how long the access token that this run replaced
	// had been expired; 0 if it had not, and after a new consent.
	Versions    int           `json:"-"`
	Unpublished bool          `json:"-"`
	Lapsed      time.Duration `json:"-"`
}

func newReport(op string, started time.Time, connections []ConnectionReport) Report {
	r := Report{Op: op, Due: len(connections), Outcomes: map[Outcome]int{}, Connections: connections,
		Duration: Milliseconds(time.Since(started).Milliseconds())}
	for _, c := range connections {
		r.Outcomes[c.Outcome]++
	}
	return r
}

// addHandedOn adds n due connections that this run had no time for.
func (r *Report) addHandedOn(n int) {
	if n > 0 {
		r.Due += n
		r.Outcomes[Deferred] += n
		r.HandedOn = n
	}
}
