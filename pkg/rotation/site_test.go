package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// consumers is how many messages of the queue are processed at once, as in template.yaml.
const consumers = 2

// site is an installation that runs as it does on AWS: a sweep each hour, and
// consumers of a queue that redelivers what failed. Each event has a process of
// its own, and 15 minutes. Parts of it can be down for hours.
type site struct {
	*harness
	driver *rotationtest.Driver
	calls  rotationtest.Calls
	sweep  time.Time // the next one
	end    time.Time // of the schedule
	down   []*outage
	skew   time.Duration // of the clocks of all processes
	asked  bool          // a server has asked for time
	course course
	err    error // what a happening found
}

// outage is a trouble that begins at some passage, or at a time, and lasts.
type outage struct {
	trouble
	onset
	not     time.Time // before which it does not begin
	begun   time.Time
	counted int
}

// newSite sets up an installation with the first sweep after so long.
func newSite(server rotationtest.Personality, firstSweep time.Duration) *site {
	s := &site{harness: newHarness(server), driver: &rotationtest.Driver{InOrder: true, MaxSteps: 50_000,
		MaxTime: 48 * time.Hour}}
	s.driver.Script = s.script
	s.gate(rotationtest.Watch(s.Journal, s.calls.Gate(s.driver.Gate)))
	s.sweep = time.Now().Add(firstSweep)
	return s
}

// script is the gate of what is down.
func (s *site) script(_ context.Context, at rotationtest.Passage) (fault rotationtest.Fault) {
	for _, o := range s.down {
		if o.begun.IsZero() && o.begins(at) {
			s.begin(o)
			continue // from the next passage on
		}
		if !o.begun.IsZero() && fault.Kind == rotationtest.Continue && o.affects(at) {
			fault = o.fault
		}
	}
	return fault
}

func (s *site) begin(o *outage) {
	if !o.begun.IsZero() {
		return
	}
	o.begun = time.Now()
	s.skew += o.trouble.skew
	s.asked = s.asked || o.asksForTime
	if o.wrong != nil {
		o.wrong(s.harness)
	}
}

// begins reports whether the outage begins at this passage.
func (o *outage) begins(at rotationtest.Passage) bool {
	if o.call == "" || at.When != rotationtest.After || at.Call != o.call || time.Now().Before(o.not) {
		return false
	}
	o.counted++
	return o.counted == o.nth
}

// affects reports whether the trouble concerns this passage.
func (t trouble) affects(at rotationtest.Passage) bool {
	return at.When == t.when && slices.ContainsFunc(t.calls, func(prefix string) bool {
		return strings.HasPrefix(at.Call,
			prefix)
	})
}

// repair ends every trouble.
func (s *site) repair() {
	for _, o := range s.down {
		if !o.begun.IsZero() && o.right != nil {
			o.right(s.harness)
		}
	}
	s.down, s.skew = nil, 0
}

// run lets the schedule and the queue go on until then, with what else is to happen
// at its time.
func (s *site) run(until time.Time, also ...happening) error {
	s.end = until
	s.driver.Go("schedule", func(ctx context.Context) {
		for ; s.sweep.Before(s.end); s.sweep = s.sweep.Add(s.settings.Cadence) {
			if !sleep(ctx, s.sweep) {
				return
			}
			s.process("sweep of "+s.sweep.Format("2 15:04"), rotation.Request{Op: "sweep"})
		}
		sleep(ctx, s.end)
	})
	for n := range consumers {
		s.driver.Go(fmt.Sprint("consumer ", n), s.consume)
	}
	for _, h := range also {
		s.driver.Go(h.what, func(ctx context.Context) {
			if sleep(ctx, h.at) {
				h.do(ctx)
			}
		})
	}
	err := s.driver.Run()
	return errors.Join(err, s.err)
}

// happening is something that happens at its time, by an actor of that name.
type happening struct {
	what string
	at   time.Time
	do   func(ctx context.Context)
}

// byHand is something that happens at a time, as one step.
func (s *site) byHand(what string, at time.Time, act func()) happening {
	return happening{what, at, func(ctx context.Context) { s.by(ctx, what, act) }}
}

// sleep returns false if ctx ends before that time.
func sleep(ctx context.Context, until time.Time) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// consume processes one message after the other. What could not be processed comes again.
func (s *site) consume(ctx context.Context) {
	for {
		m, ok := s.FollowUps.Receive(ctx, s.end)
		if !ok {
			return
		}
		if <-s.process(fmt.Sprintf("%s %d.%d", m.Request.Op, m.ID, m.Receives), m.Request) {
			s.FollowUps.Delete(m.ID)
		}
	}
}

// process handles an event, and says whether it could be handled.
func (s *site) process(name string, request rotation.Request) (handled <-chan bool) {
	done := make(chan bool, 1)
	s.driver.Go(name, func(ctx context.Context) {
		ok := false
		defer func() { done <- ok }() // even if the process is ended
		ctx, cancel := rotationtest.Within(rotationtest.Scheduled(s.clocked(ctx)), runTime)
		defer cancel()
		_, err := s.now().Do(ctx, request)
		ok = err == nil
	})
	return done
}

// now is a new process, by the clocks as they are.
func (s *site) now() *rotation.Rotator {
	if s.skew != 0 {
		return s.offBy(s.skew)
	}
	return s.rotator()
}

func (s *site) clocked(ctx context.Context) context.Context {
	if s.skew != 0 {
		return rotationtest.OffBy(ctx, s.skew)
	}
	return ctx
}

// connected lets pat connect acme, and publishes that.
func (s *site) connected() error {
	ctx := context.Background()
	if result, err := s.consent(ctx, pat, rotation.Identity{Company: "42"}); result != rotation.Connected {
		return fmt.Errorf("consent: %s, %w", result, err)
	}
	s.deliver(ctx)
	return nil
}

func (s *site) registered(c token.Connection) error {
	_, err := rotation.Register(context.Background(), s.Ledger, s.SecretStore, s.settings.Stack, c)
	return err
}
