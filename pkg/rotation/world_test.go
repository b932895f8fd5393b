package rotation_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/fsck"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// scenario is what the explorer plays with every list of choices: acme is
// connected, and once its pair has reached some age the actors meet, with
// faults and switches between them. After the time of a lease and a quiet
// period a recovery may follow, with the faults that are left. Then faults
// stop, and three sweeps must bring everything to rest.
type scenario struct {
	server   rotationtest.Personality
	age      time.Duration  // 0: an hour
	lifetime time.Duration  // of the server's access tokens; 0: its own
	pending  bool           // not connected yet
	service  bool           // acme is a service account
	before   func(*harness) // nil: nothing special
	actors   []actor
	recovery bool
	menu     func(rotationtest.Passage) []rotationtest.Fault // nil: everything that can go wrong
	sure     bool                                            // all of it with a fault and a switch at once, at any time
	// about something else than the server: one server is enough for trying all of it
	rare     bool
	long     bool // too long for trying all of it
	faults   int
	switches int
	damage   []fsck.Kind  // that is found once all is at rest
	seen     *faultCounts // counts the faults; nil: they are not counted
}

// runTime is what AWS Lambda gives a run of the rotate function.
const runTime = 15 * time.Minute

// actor is a process, or a person.
type actor struct {
	name string
	act  func(context.Context, *harness)
}

func (s scenario) with(faults, switches int) rotationtest.World {
	s.faults, s.switches = faults, switches
	if s.lifetime > 0 {
		s.server.Lifetime = s.lifetime
	}
	return s.world
}

// strict reports whether the server ends the old pair at once, as Procore's most
// probably does.
func (s scenario) strict() bool { return s.server == rotationtest.Personality{} }

func (s scenario) world(c *rotationtest.Choices) error {
	d := &rotationtest.Driver{Choices: c, Menu: menu, Faults: s.faults, Preemptions: s.switches}
	if s.menu != nil {
		d.Menu = s.menu
	}
	b := newHarness(s.server)
	var calls rotationtest.Calls
	b.gate(rotationtest.Watch(b.Journal, calls.Gate(s.seen.count(d.Gate))))
	ctx := context.Background() // of no actor: passes every gate
	if _, err := rotation.Register(ctx, b.Ledger, b.SecretStore, b.settings.Stack, acme); err != nil {
		return err
	}
	switch {
	case s.service:
		if report, err := b.rotator().ServiceAccount(ctx, acme, "42"); err != nil || report.Outcomes[rotation.Rotated] != 1 {
			return fmt.Errorf("service account: %+v, %w", report, err)
		}
		time.Sleep(cmp.Or(s.age, time.Hour))
	case !s.pending:
		if result, err := b.consent(ctx, pat, rotation.Identity{Company: "42"}); result != rotation.Connected {
			return fmt.Errorf("consent: %s, %w", result, err)
		}
		b.deliver(ctx)
		time.Sleep(cmp.Or(s.age, time.Hour))
	}
	if s.before != nil {
		s.before(b)
	}
	rec, _, err := b.Ledger.Load(ctx, acme)
	if err != nil {
		return err
	}
	b.epoch = rec.Epoch
	for _, a := range s.actors {
		d.Go(a.name, func(ctx context.Context) { a.act(ctx, b) })
	}
	err = d.Run()
	if err == nil && s.recovery {
		time.Sleep(b.settings.Lease + b.settings.Quiet + 30*time.Second)
		d.Menu = consistent
		d.Go("recovery", func(ctx context.Context) { _, _ = b.rotator().Sweep(rotationtest.Scheduled(ctx)) })
		err = d.Run()
	}
	if err == nil {
		err = b.settle(ctx)
	}
	if err == nil {
		err = b.undamaged(ctx, s.damage...)
	}
	if err == nil && !s.long {
		err = calls.Check(spins, spinsHourly)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.Journal)
	}
	return nil
}

// menu is every fault. Actions of a person have none.
func menu(at rotationtest.Passage) []rotationtest.Fault {
	if strings.HasPrefix(at.Call, "hand.") {
		return nil
	}
	return rotationtest.AnyFault(at)
}

// consistent is menu without stale reads: minutes after a write no read of the
// secret store is stale.
func consistent(at rotationtest.Passage) []rotationtest.Fault {
	return slices.DeleteFunc(menu(at), func(f rotationtest.Fault) bool {
		return f.Kind == rotationtest.Stale && at.Call != "ledger.Due"
	})
}

// settle runs up to three sweeps, until everything is at rest, and checks the invariants.
func (b *harness) settle(ctx context.Context) error {
	b.issuer = nil
	var rec rotation.Record
	var responses []rotation.TokenResponse
	for sweeps := 0; sweeps < 3 && !settled(rec); sweeps++ {
		time.Sleep(20 * time.Minute)
		b.deliver(ctx)
		run, cancel := rotationtest.Within(rotationtest.Scheduled(ctx), runTime)
		_, err := b.rotator().Sweep(run)
		cancel()
		if err != nil {
			return err
		}
		rec, responses, _ = b.Ledger.Load(ctx, acme)
	}
	err := rotationtest.CheckAtRest(b.Harness)
	quarantined := slices.ContainsFunc(responses,
		func(m rotation.TokenResponse) bool { return m.State == rotation.Quarantined })
	if err == nil && rec.Status == rotation.Active && !quarantined && !b.Issuer.Personality.NoRotation {
		err = b.works(ctx)
	}
	if err == nil {
		err = b.idle(ctx)
	}
	return err
}

// settled reports whether nothing is left to do for minutes.
func settled(rec rotation.Record) bool {
	repeated := rec.Refusal == nil || rec.Refusal.Tries > 0 // a refused token once, for the server may be wrong
	return rec.Revision != "" && rec.Attempt == nil && repeated && !rec.NoticePending && len(rec.Failures) == 0 &&
		rec.SearchAt.IsZero() &&
		(rec.DueAt.IsZero() || time.Until(rec.DueAt) > 10*time.Minute)
}

// idle is I14 and I16: right after the sweep that brought it to rest, another
// one finds nothing to do and changes nothing.
func (b *harness) idle(ctx context.Context) error {
	effects := len(b.Journal.Entries())
	report, err := b.rotator().Sweep(ctx)
	if err != nil || report.Due != 0 || len(b.Journal.Entries()) != effects {
		return errors.Join(err, fmt.Errorf("I14 is broken: a fourth sweep finds %+v to do", report.Connections))
	}
	return nil
}
