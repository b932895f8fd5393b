package rotation

import (
	"errors"
	"fmt"
	"time"
)

// Settings are the durations and limits of the protocol.
type Settings struct {
	Stack         string        // id of this installation, written into everything it stores
	Cadence       time.Duration // between two scheduled sweeps
	Concurrency   int           // connections handled at once in one run
	RedeemRate    float64       // redeems a second per environment
	RedeemTimeout time.Duration // longest one POST to the token endpoint may take
	Lease         time.Duration // life of one attempt
	Quiet         time.Duration // after the lease, before a token in doubt is presented again
	PutsPerDay    int           // versions the secret store takes in 24 hours; 0: no limit
}

// DefaultSettings are the documented defaults for an AWS installation.
func DefaultSettings(stack string) Settings {
	return Settings{Stack: stack, Cadence: time.Hour, Concurrency: 8, RedeemRate: 2,
		RedeemTimeout: 20 * time.Second, Lease: time.Minute, Quiet: 2 * time.Minute, PutsPerDay: 99}
}

// longestRedeem bounds the redeem timeout. A callback has a minute for an exchange, and
// needs time before the POST and for saving the answer.
const longestRedeem = 30 * time.Second

// Validate reports every setting that is out of range or contradicts another.
func (s Settings) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(s.Stack != "", "the stack id is empty")
	check(s.Cadence > 0, "the cadence %v is not positive", s.Cadence)
	check(s.Concurrency > 0, "the concurrency %d is not positive", s.Concurrency)
	check(s.RedeemRate > 0, "the redeem rate %v is not positive", s.RedeemRate)
	check(s.RedeemTimeout > 0, "the redeem timeout %v is not positive", s.RedeemTimeout)
	check(s.RedeemTimeout <= longestRedeem, "the redeem timeout %v is too long; it is at most %v", s.RedeemTimeout,
		longestRedeem)
	check(s.Quiet > 0, "the quiet period %v is not positive", s.Quiet)
	check(s.PutsPerDay >= 0, "the puts per day %d are negative", s.PutsPerDay)
	check(s.Lease >= 2*s.RedeemTimeout+5*time.Second,
		"the lease %v is shorter than twice the redeem timeout %v plus 5s", s.Lease, s.RedeemTimeout)
	return errors.Join(errs...)
}
