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
	HandedOn    int                `json:"handed_on,omitempty"` // of those due: deferred unseen, left to the next sweep
	Duration    Milliseconds       `json:"duration_ms"`
	// Skipped: a follow-up sweep that left the work to another one. It is no sign of life.
	Skipped bool `json:"-"`
}

// Milliseconds is a duration that JSON shows as a whole number of milliseconds.
type Milliseconds int64

// ConnectionReport is what a run did with one connection and found of it.
type ConnectionReport struct {
	Connection token.Connection `json:"connection"`
	Outcome    Outcome          `json:"outcome"`
	Epoch      int64            `json:"epoch,omitempty"`
	Generation int64            `json:"generation,omitempty"`
	ExpiresAt  time.Time        `json:"expires_at,omitzero"` // of the access token
	RetryAt    time.Time        `json:"retry_at,omitzero"`
	// what happened and what to do, where the outcome does not say it
	Detail string `json:"detail,omitempty"`

	// What is measured and not answered: versions that the secret was given in the
	// last 24 hours, whether the current pair is one that it does not show although
	// no other run is about to see to that, and how long the access token that this
	// run replaced had been dead by then: 0 if it was not, and after a new consent.
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

// addHandedOn counts n connections that are due and that this run had no time for.
func (r *Report) addHandedOn(n int) {
	if n > 0 {
		r.Due += n
		r.Outcomes[Deferred] += n
		r.HandedOn = n
	}
}
