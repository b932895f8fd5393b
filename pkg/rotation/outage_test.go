package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// need says what an hour of a trouble prevents, and so how long readers have no live token
// at least, whatever the engine does.
type need string

const (
	// needless: tokens are renewed without it.
	needless need = "nothing"
	// toRenew: no token is renewed between its beginning and its end. Readers go
	// without from the end of the token that they have until the repair.
	toRenew need = "renewing"
	// toSweep is toRenew where sweeps renew; follow-ups need no list.
	toSweep need = "listing"
	// toPublish is toRenew, too. But nobody knows before presenting that nothing can be
	// published, and presenting ends the token that readers have: what was left
	// of its life then is no fault of the engine.
	toPublish need = "publishing"
	// toFollowUp: runs begin at sweeps, and with messages that were sent before.
	// Each of them can renew a token at its begin and until its end.
	toFollowUp need = "follow-ups"
	// toConnect: a first consent has no token before the repair.
	toConnect need = "a first consent"
)

// outageRow is a row of the table of what an hour of trouble costs. Tokens may be
// missing for longer than the least possible time by wait: what the protocol waits between two
// tries, at most.
type outageRow struct {
	trouble
	need   need
	wait   time.Duration
	server rotationtest.Personality
}

const (
	// soon is when a run follows that could not do anything at all.
	soon = 3 * time.Minute
	// inDoubt is the lease and the quiet period of an attempt with an unknown result.
	inDoubt = 4 * time.Minute
	// backOff is the longest wait after a failure.
	backOff = 16 * time.Minute
	// republish is the wait of a publication that has used up the time of its run.
	republish = time.Minute
	// untilSweep is the wait for the schedule, where nobody could ask for a run before
	// the repair, or had a reason to.
	untilSweep = -1
)

var outageRows = []outageRow{
	{troubleCalled("ledger.Load fails"), toRenew, soon, strictServer},
	{troubleCalled("ledger.Due fails"), toSweep, soon, strictServer},
	{troubleCalled("ledger.Write fails"), toRenew, soon, strictServer},
	// the secret store takes the answer, and the ledger a copy
	{troubleCalled("ledger.SaveResponse fails"), needless, 0, strictServer},
	{troubleCalled("DynamoDB is down"), toRenew, soon, strictServer},
	{troubleCalled("secrets.Current fails"), toRenew, backOff, strictServer},
	{troubleCalled("secrets.Version and Versions fail"), needless, 0, strictServer},
	{troubleCalled("secrets.Put fails"), toPublish, republish, strictServer},
	{troubleCalled("secrets.Promote fails"), toPublish, republish, strictServer},
	{troubleCalled("secrets.Create fails"), toConnect, republish, strictServer},
	{troubleCalled("Secrets Manager is down"), toRenew, backOff, strictServer},
	{troubleCalled("the secret store hangs"), toRenew, backOff, strictServer},
	{troubleCalled("sealer.DataKey fails"), toRenew, backOff, strictServer},
	{troubleCalled("sealer.Unwrap fails"), toRenew, backOff, strictServer},
	{troubleCalled("the app credentials cannot be read"), toRenew, backOff, strictServer},
	{troubleCalled("no connection to the login host"), toRenew, backOff, strictServer},
	{troubleCalled("the login host answers 503"), toRenew, inDoubt, strictServer},
	{troubleCalled("the login host answers 429"), toRenew, backOff, strictServer},
	{troubleCalled("the login host answers invalid_client"), toRenew, backOff, strictServer},
	// elsewhere the first one is the end of the consent
	{troubleCalled("the answers of the login host are lost"), toRenew, inDoubt, overlap},
	{troubleCalled("the login host hangs"), toRenew, inDoubt, overlap},
	{troubleCalled("issuer.Identify fails"), needless, 0, strictServer},
	{troubleCalled("issuer.Identify fails"), toConnect, backOff, strictServer},
	{troubleCalled("issuer.Revoke fails"), needless, 0, strictServer},
	{troubleCalled("the queue refuses messages"), toFollowUp, 0, strictServer},
	{troubleCalled("the shared rate limiter fails"), needless, 0, strictServer},
	{troubleCalled("the notice claims fail"), needless, 0, strictServer},
	{troubleCalled("notices cannot be delivered"), needless, 0, strictServer},
	{troubleCalled("links cannot be made"), needless, 0, strictServer},
	{troubleCalled("the network is down"), toRenew, untilSweep, strictServer},
	{troubleCalled("the client secret is wrong"), toRenew, backOff, strictServer},
	{troubleCalled("the clocks are three hours ahead"), needless, soon, strictServer},
	{troubleCalled("the clocks are three hours behind"), toRenew, untilSweep, strictServer},
}

var strictServer = rotationtest.Personality{}

func troubleCalled(name string) trouble {
	i := slices.IndexFunc(troubles, func(t trouble) bool { return t.name == name })
	if i < 0 {
		panic("there is no trouble called " + name)
	}
	return troubles[i]
}

// outageHour is one hour of trouble at one moment, and what it cost.
type outageHour struct {
	outageRow
	lifetime time.Duration
	into     time.Duration // since the last sweep
	by       remedy
	missing  time.Duration // that readers had no live token
	least    time.Duration // that is possible
	allowed  time.Duration // beyond that
	healed   error
}

// One hour of each port being down, then repaired: for how long readers find no
// live token in the secret, beside the least possible time. Afterwards one sweep
// or one rotation that a person asks for heals the connection.
func TestOneHourOfEachPortBeingDown(t *testing.T) {
	results := make([][]outageHour, len(outageRows))
	t.Run("port", func(t *testing.T) {
		for i, row := range outageRows {
			t.Run(row.name+" "+string(row.need), func(t *testing.T) {
				t.Parallel()
				for _, lifetime := range []time.Duration{900 * time.Second, 5400 * time.Second, 7200 * time.Second} {
					for _, into := range outageOffsets {
						for _, by := range []remedy{bySweep, byRotate} {
							h := outageHour{outageRow: row, lifetime: lifetime, into: into, by: by}
							synctest.Test(t, func(t *testing.T) {
								must(t, h.happen())
								time.Sleep(24 * time.Hour) // what is late arrives
							})
							results[i] = append(results[i], h)
						}
					}
				}
				for _, complaint := range complaints(results[i]) {
					t.Error(complaint)
				}
			})
		}
	})
	t.Logf("minutes without a live token in the secret / the least possible number, at three lifetimes, "+
		"by itself and where a person rotates after the repair\n%s",
		outageTable(results))
}

// happen lets three quiet hours go by, then the one of trouble, and four more.
func (h *outageHour) happen() error {
	server := h.server
	server.Lifetime = h.lifetime
	s := newSite(server, 20*time.Minute)
	if err := s.registered(acme); err != nil {
		return err
	}
	from := s.sweep.Add(3*s.settings.Cadence + h.into)
	if h.need != toConnect {
		if err := s.connected(); err != nil {
			return err
		}
	}
	if err := s.run(from.Add(-time.Minute)); err != nil {
		return err
	}
	o := &outage{trouble: h.trouble}
	s.down = []*outage{o}
	repair, until := from.Add(time.Hour), from.Add(5*time.Hour)
	var living time.Time // until when what readers have when it begins
	var sent []time.Time // when messages come that were sent before
	also := []happening{
		s.byHand("trouble", from, func() {
			living = s.LiveUntil(acme)
			sent = s.FollowUps.Coming("ensure")
			s.begin(o)
		}),
		s.byHand("repair", repair, s.repair),
	}
	if h.need == toConnect {
		from = from.Add(10 * time.Minute)
		also = append(also, happening{"person", from, func(ctx context.Context) {
			ctx, cancel := rotationtest.Within(ctx, callbackTime)
			defer cancel()
			consenter.act(ctx, s.harness)
		}})
	}
	if h.by == byRotate {
		also = append(also, happening{"operator", repair.Add(time.Second), s.rotated})
	}
	h.healed = s.run(until, also...)
	s.err = nil
	if h.healed == nil {
		h.healed = s.inOrder()
	}
	h.missing = s.WithoutToken(acme, from, until)
	h.judge(s, from, repair, living, sent)
	return nil
}

// judge says how long tokens had to be missing at least, and how much longer they may be.
func (h *outageHour) judge(s *site, from, repair, living time.Time, sent []time.Time) {
	h.allowed = h.wait
	if h.wait == untilSweep {
		h.allowed = h.sweepAfter(s, repair).Sub(repair) + soon
	}
	if h.by == byRotate && !h.asksForTime {
		h.allowed = min(h.allowed, inDoubt)
	}
	switch h.need {
	case toRenew:
		h.least = max(0, repair.Sub(living))
	case toSweep:
		if h.lifetime > s.settings.Cadence {
			h.least = max(0, repair.Sub(living))
		} else {
			h.allowed = 0
		}
	case toPublish:
		h.least = max(0, repair.Sub(living))
		if spent := s.spent(from); !spent.IsZero() && spent.Before(living) && spent.Before(repair) {
			h.allowed += min(living.Sub(spent), repair.Sub(spent))
		}
	case toConnect:
		h.least = repair.Sub(from)
	case toFollowUp:
		runs := 0
		h.least, runs = h.uncovered(s, from, repair, living, sent)
		h.least = min(h.least, h.missing)              // messages that are delivered again begin runs as well
		h.allowed = time.Duration(runs)*runTime + soon // none has to wait for its own end
	}
}

// spent is when the first refresh token was given for another one since from.
func (s *site) spent(from time.Time) time.Time {
	for _, e := range s.Journal.Entries() {
		if _, granted := e.Effect.(rotationtest.Granted); granted && !e.At.Before(from) {
			return e.At
		}
	}
	return time.Time{}
}

// uncovered is for how long no token can be alive if runs begin with the messages
// that were sent before, and at sweeps, until the first one after the repair. A
// run renews at its begin and at its end.
func (h *outageHour) uncovered(s *site, from, repair, living time.Time, sent []time.Time) (gap time.Duration,
	runs int) {
	moments := append(slices.Clone(sent), h.sweepAfter(s, from), h.sweepAfter(s, repair))
	if h.by == byRotate {
		moments = append(moments, repair)
	}
	slices.SortFunc(moments, time.Time.Compare)
	for _, m := range moments {
		if m.After(living) {
			gap += m.Sub(living)
		}
		if !m.Before(repair) {
			break
		}
		living = m.Add(runTime + h.lifetime)
		runs++
	}
	return gap, runs
}

// sweepAfter is the first sweep of the schedule after a time.
func (h *outageHour) sweepAfter(s *site, at time.Time) time.Time {
	sweep := s.sweep
	for sweep.After(at) {
		sweep = sweep.Add(-s.settings.Cadence)
	}
	return sweep.Add(s.settings.Cadence)
}

// complaints say what is wrong with the hours of one row, each thing once.
func complaints(hours []outageHour) (all []string) {
	said := map[string]bool{}
	say := func(key, format string, args ...any) {
		if !said[key] {
			said[key] = true
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	for _, h := range hours {
		when := fmt.Sprintf("tokens of %v, trouble from %v after a sweep on, repaired by %s", h.lifetime, h.into, h.by)
		if h.healed != nil {
			for line := range strings.Lines(h.healed.Error()) {
				say(line[:min(40, len(line))], "%s: %s", when, line)
			}
		}
		if h.missing > h.least+h.allowed {
			say(fmt.Sprint(h.lifetime, h.by), "%s: %v without a live token, at least %v are needed and %v more allowed", when,
				h.missing.Round(time.Second), h.least.Round(time.Second), h.allowed.Round(time.Second))
		}
		if h.missing < h.least {
			say("least", "%s: %v without a live token are fewer than the least possible %v", when, h.missing, h.least)
		}
	}
	return all
}

// outageTable shows of each row and lifetime the moment that cost most beyond the
// least possible time.
func outageTable(results [][]outageHour) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "down for an hour\tkeeps from\t900 s\tand rotate\t5400 s\tand rotate\t7200 s\tand rotate\tallowed "+
		"beyond")
	for _, hours := range results {
		if len(hours) == 0 { // not run
			continue
		}
		fmt.Fprintf(w, "%s\t%s", hours[0].name, hours[0].need)
		var allowed time.Duration
		for _, lifetime := range []time.Duration{900 * time.Second, 5400 * time.Second, 7200 * time.Second} {
			for _, by := range []remedy{bySweep, byRotate} {
				worst := outageHour{missing: -1}
				for _, h := range hours {
					if h.lifetime == lifetime && h.by == by && (worst.missing < 0 ||
						h.missing-h.least-h.allowed > worst.missing-worst.least-worst.allowed) {
						worst = h
					}
				}
				mark := ""
				if worst.missing > worst.least+worst.allowed {
					mark = " !"
				}
				fmt.Fprintf(w, "\t%.0f/%.0f%s", worst.missing.Minutes(), worst.least.Minutes(), mark)
				allowed = max(allowed, worst.allowed)
			}
		}
		fmt.Fprintf(w, "\t%.0f\n", allowed.Minutes())
	}
	_ = w.Flush()
	return text.String()
}

// One minute of each port being down, at the moment that a run comes: half a minute
// before a sweep, and before the message that renews a token of 15 minutes. The
// connection is in order again long before the next sweep, and readers miss minutes.
func TestOneMinuteOfEachPortBeingDown(t *testing.T) {
	var mu sync.Mutex
	worst := map[string]time.Duration{}
	t.Run("port", func(t *testing.T) {
		for _, row := range outageRows {
			if row.need == toConnect {
				continue
			}
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				for _, lifetime := range lifetimes {
					for _, before := range []string{"a sweep", "a message"} {
						if before == "a message" && lifetime > time.Hour { // which sweeps suffice for
							continue
						}
						synctest.Test(t, func(t *testing.T) {
							missing, err := row.minute(lifetime, before == "a message")
							if err != nil {
								t.Errorf("tokens of %v, trouble before %s: %v", lifetime, before, err)
							}
							if missing > shortly && row.wait != untilSweep {
								t.Errorf("tokens of %v, trouble before %s: %v without a live token", lifetime, before,
									missing.Round(time.Second))
							}
							mu.Lock()
							defer mu.Unlock()
							worst[row.name] = max(worst[row.name], missing)
							time.Sleep(24 * time.Hour) // what is late arrives
						})
					}
				}
			})
		}
	})
	var text strings.Builder
	for _, row := range outageRows {
		if missing, run := worst[row.name]; run {
			fmt.Fprintf(&text, "%-42s %.1f\n", row.name, missing.Minutes())
			delete(worst, row.name)
		}
	}
	t.Logf("minutes without a live token in the secret, of one minute of trouble\n%s", &text)
}

// shortly is for how long tokens may be missing after a minute of trouble: the minute
// itself, and then what is waited at most after a first failure, or after an
// unknown end.
const shortly = time.Minute + inDoubt

// minute lets a minute of trouble come at a run, and returns for how long tokens were missing.
func (r outageRow) minute(lifetime time.Duration, atMessage bool) (missing time.Duration, err error) {
	server := r.server
	server.Lifetime = lifetime
	s := newSite(server, 20*time.Minute)
	if err := errors.Join(s.registered(acme), s.connected()); err != nil {
		return 0, err
	}
	from := s.sweep.Add(3*s.settings.Cadence - 30*time.Second)
	if err := s.run(from.Add(-10 * time.Minute)); err != nil {
		return 0, err
	}
	if coming := s.FollowUps.Coming("ensure"); atMessage && len(coming) > 0 {
		from = coming[0].Add(-30 * time.Second)
	}
	o := &outage{trouble: r.trouble}
	s.down = []*outage{o}
	until := from.Add(50 * time.Minute)
	if r.wait == untilSweep {
		until = until.Add(20 * time.Minute)
	}
	err = s.run(until, s.byHand("trouble", from, func() { s.begin(o) }), s.byHand("repair", from.Add(time.Minute),
		s.repair))
	if err == nil {
		err = s.inOrder()
	}
	return s.WithoutToken(acme, from, until), err
}
