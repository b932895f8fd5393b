package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// lasting is a course of events that the explorer disturbs by troubles that last for hours.
// After the repair, one sweep or one forced rotation must make everything work.
type lasting struct {
	name    string
	pending bool                                  // acme is not connected yet
	before  func(*site)                           // shortly before it happens; nil: nothing
	happens func(ctx context.Context, b *harness) // nil: a sweep, at which acme is due
	time    time.Duration                         // of the process in which it happens; 0: as much as it takes
	server  rotationtest.Personality
}

var lastings = []lasting{
	{name: "a rotation, and trouble that lasts"},
	{name: "a consent of a connected one, and trouble that lasts", happens: consenter.act, time: callbackTime},
	{name: "a first consent, and trouble that lasts", pending: true, happens: consenter.act, time: callbackTime},
	{name: "an import, and trouble that lasts", pending: true, happens: importer.act},
	{name: "a disconnect, and trouble that lasts", happens: disconnecter.act},
	{name: "a withdrawal, and trouble that lasts", before: func(s *site) {
		withdrawer.act(context.Background(),
			s.harness)
	}},
	{name: "a server that refuses by mistake, and trouble that lasts", before: func(s *site) { refuseOnce(s.harness) }},
	{name: "a service account, and trouble that lasts", pending: true, happens: serviceCreator("").act},
}

// callbackTime is what the callback function has.
const callbackTime = 90 * time.Second

// spins and spinsHourly are more calls than anything that waits between its tries makes:
// saving and publishing try every few seconds until their run ends.
const (
	spins       = 20
	spinsHourly = 2000
)

// remedy is what makes a connection work after the repair.
type remedy string

const (
	bySweep  remedy = "the next sweep"
	byRotate remedy = "a rotation that a person asks for"
)

// course is how a story goes on, apart from its troubles.
type course struct {
	lifetime time.Duration // of access tokens
	lasts    time.Duration // the trouble, at least
	by       remedy
}

func (c course) String() string {
	return fmt.Sprintf("tokens live %v, trouble lasts %v, repaired by %s", c.lifetime, c.lasts, c.by)
}

var lifetimes = []time.Duration{5400 * time.Second, 900 * time.Second, 7200 * time.Second}

var courses = func() (courses []course) {
	for _, lifetime := range lifetimes {
		for _, lasts := range []time.Duration{100 * time.Minute, 4 * time.Hour} {
			for _, by := range []remedy{bySweep, byRotate} {
				courses = append(courses, course{lifetime, lasts, by})
			}
		}
	}
	return courses
}()

// with makes a world with one trouble or two. How it goes on is a choice where free
// is not 0; else it follows from the troubles, so that each of them meets one
// course and each course many of them.
func (l lasting) with(howMany, free int) rotationtest.World {
	return func(c *rotationtest.Choices) error {
		h := fnv.New32a()
		var chosen []*outage
		for n := range howMany {
			o := &outage{trouble: rotationtest.Pick(c, fmt.Sprint("trouble ", n+1), troublesOf(howMany)),
				onset: rotationtest.Pick(c, "it begins", onsets)}
			chosen = append(chosen, o)
			_, _ = fmt.Fprint(h, l.name, o.trouble, o.onset)
		}
		options := courses
		if free == 0 {
			only := int(h.Sum32() % uint32(len(courses)))
			options = courses[only : only+1]
		}
		s := l.site(rotationtest.Pick(c, "and", options))
		err := s.play(l, chosen)
		if err != nil {
			err = fmt.Errorf("%w\n%v\n%s", err, s.course, s.Journal)
		}
		return err
	}
}

// troublesOf leaves clocks that are ahead out of pairs. What fails meanwhile would be
// tried again at a time that other clocks reach only hours later.
func troublesOf(howMany int) []trouble {
	if howMany == 1 {
		return troubles
	}
	return slices.DeleteFunc(slices.Clone(troubles), func(t trouble) bool { return t.skew > 0 })
}

func (l lasting) site(c course) *site {
	server := l.server
	server.Lifetime = c.lifetime
	s := newSite(server, 20*time.Minute)
	s.course = c
	return s
}

// play lets the story happen at its moment: at the second sweep or, where it is no
// sweep, ten minutes later.
func (s *site) play(l lasting, troubles []*outage) error {
	err := s.registered(acme)
	if err == nil && !l.pending {
		err = s.connected()
	}
	moment := s.sweep.Add(s.settings.Cadence)
	if l.happens != nil {
		moment = moment.Add(10 * time.Minute)
	}
	if err == nil {
		err = s.run(moment.Add(-6 * time.Minute))
	}
	if err != nil {
		return err
	}
	if l.before != nil {
		l.before(s)
	}
	also := s.breakdown(troubles, moment)
	if l.happens != nil {
		also = append(also, happening{"person", moment, func(ctx context.Context) {
			rec, _, _ := s.Ledger.Load(context.Background(), acme)
			s.epoch = rec.Epoch
			if l.time > 0 {
				var cancel context.CancelFunc
				ctx, cancel = rotationtest.Within(ctx, l.time)
				defer cancel()
			}
			l.happens(s.clocked(ctx), s.harness)
		}})
	}
	sweep := s.sweep // the last one before the repair
	for sweep.Before(moment.Add(s.course.lasts)) {
		sweep = sweep.Add(s.settings.Cadence)
	}
	repair := sweep.Add(8 * time.Minute) // when what failed at the sweep still waits
	also = append(also, s.byHand("repair", repair, s.repair))
	if s.course.by == byRotate {
		also = append(also, happening{"operator", repair.Add(time.Minute), s.rotated})
	}
	if err := s.run(sweep.Add(s.settings.Cadence+s.settings.Lease+s.settings.Quiet+5*time.Minute), also...); err != nil {
		return err
	}
	for range 3 {
		next := s.nextTry()
		if next.IsZero() {
			break
		}
		if err := s.run(next.Add(5 * time.Minute)); err != nil {
			return err
		}
	}
	return s.inOrder()
}

// nextTry is when the token is presented again although everything is repaired; zero: it
// was. A server that refuses by mistake only now is asked again after 15 minutes. After a
// firewall in between, a person's rotate is immediate, and a sweep comes within six hours.
func (s *site) nextTry() time.Time {
	rec, _, _ := s.Ledger.Load(context.Background(), acme)
	if rec.Refusal != nil && rec.Refusal.Tries <= 1 {
		return rec.Refusal.NextAt
	}
	for _, f := range rec.Failures {
		if f.Step == rotation.Redeem && f.Class == "config" && f.Cause == "" && s.course.by != byRotate {
			return f.NextAt.Add(s.settings.Cadence)
		}
	}
	return time.Time{}
}

// breakdown prepares the troubles of what happens at that moment.
func (s *site) breakdown(troubles []*outage, moment time.Time) (also []happening) {
	s.down = troubles
	for n, o := range troubles {
		o.not = moment
		if o.call == "" {
			also = append(also, s.byHand(fmt.Sprint("trouble ", n+1), moment.Add(o.onset.after), func() { s.begin(o) }))
		}
	}
	return also
}

// rotated is a person who rotates the connection, and again if an attempt, its quiet
// period or a wait that the server asked for is not over. Then readers must find a live
// token.
func (s *site) rotated(ctx context.Context) {
	for range 3 {
		report, err := s.rotator().Rotate(ctx, acme)
		if err != nil {
			s.err = fmt.Errorf("I19 is broken: after the repair a rotation fails: %w", err)
			return
		}
		r := report.Connections[0]
		longest := s.settings.Lease + s.settings.Quiet
		if s.asked {
			longest = 15 * time.Minute
		}
		waits := r.Outcome == rotation.Busy || r.Outcome == rotation.Unknown || r.Outcome == rotation.Deferred && s.asked
		switch wait := time.Until(r.RetryAt); {
		case !waits || r.RetryAt.IsZero():
			s.err = s.rotatedTo(r)
			return
		case wait > longest:
			s.err = fmt.Errorf("I19 is broken: after the repair a rotation answers %s, and is to be tried again in %v",
				r.Outcome, wait)
			return
		}
		sleep(ctx, r.RetryAt.Add(time.Second))
	}
	s.err = errors.New("I19 is broken: after the repair a rotation keeps answering that it has to wait")
}

func (s *site) rotatedTo(report rotation.ConnectionReport) error {
	rec, _, err := s.Ledger.Load(context.Background(), acme)
	if err != nil || rec.Status != rotation.Active {
		return err
	}
	refused := []rotation.Outcome{rotation.ConfigError, rotation.Failed, rotation.Deferred}
	switch {
	case slices.Contains(refused, report.Outcome):
		return fmt.Errorf("I19 is broken: after the repair a rotation answers %s until %v: %s", report.Outcome,
			report.RetryAt, report.Detail)
	case !s.LiveUntil(acme).After(time.Now()):
		return fmt.Errorf("I19 is broken: after the repair a rotation answers %s, and readers find no live token",
			report.Outcome)
	}
	return nil
}

// inOrder checks everything, one sweep after the repair.
func (s *site) inOrder() error {
	ctx := context.Background()
	errs := []error{rotationtest.CheckRepaired(s.Harness), s.calls.Check(spins, spinsHourly)}
	rec, _, err := s.Ledger.Load(ctx, acme)
	if err == nil && rec.Status == rotation.Active {
		err = s.works(ctx)
	}
	return errors.Join(append(errs, err)...)
}
