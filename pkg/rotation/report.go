package rotation

import (
	"fmt"
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

	// Refreshing is set if the outcome is Busy because of a refresh.
	Refreshing *Refreshing `json:"-"`
}

// Refreshing is what a record shows of a refresh that has no result yet.
type Refreshing struct {
	Connection token.Connection
	Since      time.Time // when it began
	// Lost: the POST has ended without a result in the record. So the answer was lost, or
	// the process that refreshed stopped.
	Lost      bool
	CheckAt   time.Time // when a run finds out what became of it; zero: the next run does
	ExpiresAt time.Time // of the published access token; zero: not known
	// the refresh may have invalidated the published access token
	Invalidates bool
}

// Refreshing returns what r shows of a refresh without a result; nil: there is none.
func (s Settings) Refreshing(r Record, now time.Time) *Refreshing {
	a := r.Attempt
	if a == nil {
		return nil
	}
	end := s.attemptEnd(*a, now)
	found := &Refreshing{Connection: r.Connection, Since: a.BegunAt, CheckAt: end.Add(s.Quiet),
		Lost:        !now.Before(a.BegunAt.Add(s.RedeemTimeout)) || !now.Before(end),
		Invalidates: !r.ServiceAccount}
	switch {
	case r.DueAt.After(end): // the process that refreshed may have other settings
		found.CheckAt = r.DueAt
	case r.ServiceAccount:
		found.CheckAt = end
	}
	if !now.Before(found.CheckAt) {
		found.CheckAt = time.Time{}
	}
	if r.Current != nil && now.Before(r.Current.ExpiresAt) {
		found.ExpiresAt = r.Current.ExpiresAt
	}
	return found
}

// Describe says for people what happens, and that they need do nothing. stamp formats the
// times.
func (r *Refreshing) Describe(stamp func(time.Time) string) string {
	if !r.Lost {
		return fmt.Sprintf("another process began to refresh %s at %s and has no result yet; if it gets none, "+
			"tokenturn checks again automatically %s", r.Connection, stamp(r.Since), r.Check(stamp))
	}
	works := ""
	if !r.ExpiresAt.IsZero() {
		works = "; the published access token works until " + stamp(r.ExpiresAt)
		if r.Invalidates {
			works += ", unless the refresh has invalidated it"
		}
	}
	return fmt.Sprintf("the answer to the refresh of %s that began at %s was lost or unusable, or the process that "+
		"refreshed it stopped; tokenturn checks again automatically %s; no action is needed now%s", r.Connection,
		stamp(r.Since), r.Check(stamp), works)
}

// Check says when a run finds out what became of the refresh. stamp formats a time.
func (r *Refreshing) Check(stamp func(time.Time) string) string {
	if r.CheckAt.IsZero() {
		return "with its next run"
	}
	return "at " + stamp(r.CheckAt)
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
