package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	// announcedFor is how long an event that concerns an environment as a whole
	// is not told of again.
	announcedFor = daily
	// many connections of an environment that need a consent within an hour have
	// one cause, and are one notice. Fewer are a notice each.
	many     = 3
	oneCause = time.Hour
)

var errBeingTold = errors.New("another process may be telling")

// told is what this process, and where there are Announcements all of them,
// told people of environments.
type told struct {
	shared Announcements // may be nil
	mu     sync.Mutex
	until  map[string]time.Time
}

func newTold(shared Announcements) *told { return &told{shared: shared, until: map[string]time.Time{}} }

// first claims the telling of an event until then. Where it cannot be found out
// whether another process has told, people are told once more.
func (t *told) first(ctx context.Context, log *slog.Logger, event string, now, until time.Time) (first bool) {
	t.mu.Lock()
	known := now.Before(t.until[event])
	if !known {
		t.until[event] = until
	}
	t.mu.Unlock()
	if known || t.shared == nil {
		return !known
	}
	err := within(ctx, storeTimeout, func(ctx context.Context) (err error) {
		first, err = t.shared.First(ctx, event, now, until)
		return err
	})
	if err != nil {
		log.WarnContext(ctx, "whether people were told cannot be found out; they are told once more", "event", event, "error", err)
	}
	return first || err != nil
}

// tellOnce tells people of an event, unless they were told of it already and
// that covers what happens now. Whoever tells first claims it for as long as that
// takes, and for as long as it covers only afterwards: a crash in between costs a
// second notice, not the only one. It returns errBeingTold while another process
// may be at it, of which nobody knows whether it lives.
func (k *engine) tellOnce(ctx context.Context, event string, covers time.Duration, n Notice) error {
	now := k.clock()
	if !k.told.first(ctx, k.log, event, now, now) { // claims nothing
		return nil
	}
	if !k.told.first(ctx, k.log, event+", being told", now, now.Add(k.settings.Lease)) {
		return errBeingTold
	}
	err := k.deliver(ctx, n)
	if err == nil {
		k.told.first(ctx, k.log, event, now, now.Add(covers))
	}
	return err
}

// announce tells people, once in a while, of what concerns an environment.
// which tells events of one kind apart.
func (k *engine) announce(ctx context.Context, kind, environment, which, format string, args ...any) {
	_ = k.tellOnce(ctx, kind+" "+environment+" "+which, announcedFor,
		Notice{Kind: kind, Environment: environment, Summary: fmt.Sprintf(format, args...)})
}

// appError is a configuration fault of an environment's app rather than of one
// of its connections.
type appError struct {
	app  Application // as far as it is known
	text string
}

func (e *appError) Error() string { return e.text }

func (t *turn) tellConfigError(ctx context.Context, cause error) {
	if ofApp, ok := errors.AsType[*appError](cause); ok {
		t.announce(ctx, NoticeConfigError, t.conn.Environment, string(ofApp.app.ClientSecret.Fingerprint()), "%v", cause)
		return
	}
	t.notify(ctx, NoticeConfigError, t.conn, "%v", cause)
}

// noteUntold keeps a connection that needs a consent of which nobody was told.
func (r *run) noteUntold(rec Record) {
	r.appsMu.Lock()
	defer r.appsMu.Unlock()
	r.untold = append(r.untold, rec)
}

// leaveUntold asks for a sweep, which sees those that have the same cause as well.
// Where one should have told already, the schedule's next one will.
func (r *run) leaveUntold(ctx context.Context) {
	for _, rec := range r.untold {
		if rec.DueAt.After(r.clock()) {
			r.sweepBy(ctx, rec.DueAt)
		}
	}
}

// tellUntold tells people who must consent, at the end of a run, so that a cause
// which many connections have in common is one notice. That it was told is
// written afterwards: a crash in between costs a second notice, not the only one.
func (r *run) tellUntold(ctx context.Context) {
	slices.SortFunc(r.untold, func(a, b Record) int { return cmp.Compare(a.Connection.String(), b.Connection.String()) })
	of, later := map[string][]Record{}, map[token.Connection]bool{}
	for _, rec := range r.untold {
		of[rec.Connection.Environment] = append(of[rec.Connection.Environment], rec)
	}
	for _, environment := range slices.Sorted(maps.Keys(of)) {
		for _, rec := range r.tellOf(ctx, environment, of[environment]) {
			later[rec.Connection] = true
		}
	}
	for _, rec := range r.untold {
		if later[rec.Connection] {
			continue
		}
		if err := r.nowTold(ctx, rec.Connection); err != nil {
			r.log.WarnContext(ctx, "that people were told is not written; they will be told again", "connection", rec.Connection.String(), "error", err)
		}
	}
}

// tellOf tells people of connections of one environment that need a consent, and
// returns those of which they are still to be told: by the next sweep of the
// schedule, which may meet a better time, or soon where another process is at it.
func (r *run) tellOf(ctx context.Context, environment string, records []Record) (left []Record) {
	together := records
	if len(records) < many {
		together = nil
		for _, rec := range records {
			switch place, free := r.alone(ctx, environment); {
			case !free:
				together = append(together, rec)
			case r.tellOne(ctx, rec) != nil:
				left = append(left, rec)
			default:
				r.told.first(ctx, r.log, place, r.clock(), r.clock().Add(oneCause))
			}
		}
	}
	if len(together) == 0 {
		return left
	}
	err := r.tellMany(ctx, environment, together)
	if err == nil {
		return left
	}
	if errors.Is(err, errBeingTold) {
		r.sweepBy(ctx, r.clock().Add(r.settings.Lease))
	}
	return append(left, together...)
}

// alone reports whether so few needed a consent lately that one more is a notice
// of its own, and the event to claim when that was told.
func (r *run) alone(ctx context.Context, environment string) (place string, free bool) {
	now := r.clock()
	for n := 1; n < many && !free; n++ {
		place = fmt.Sprintf("%s %s %d", NoticeNeedsConsent, environment, n)
		free = r.told.first(ctx, r.log, place, now, now) // claims nothing
	}
	return place, free
}

func (r *run) tellMany(ctx context.Context, environment string, records []Record) error {
	var names []string
	for _, rec := range records[:min(len(records), 5)] {
		names = append(names, rec.Connection.String())
	}
	if len(records) > len(names) {
		names = append(names, fmt.Sprintf("and %d more", len(records)-len(names)))
	}
	cause := "The client secret may have been reset in the Developer Portal, or the app's access taken back."
	if environment == "monthly-sandbox" {
		cause = "Procore overwrites this environment on the first working day of each month, which ends every consent in it."
	}
	return r.tellOnce(ctx, NoticeNeedsConsent+" "+environment, oneCause, Notice{Kind: NoticeNeedsConsent, Environment: environment, Summary: fmt.Sprintf("Connections of %s need a consent in numbers: %s. %s "+
		"See all with `tokenturn connection list`, and make a link for each with `tokenturn connection invite`.", environment, strings.Join(names, ", "), cause)})
}

func (r *run) tellOne(ctx context.Context, rec Record) error {
	n := Notice{Kind: NoticeNeedsConsent, Connection: rec.Connection, Environment: rec.Connection.Environment}
	how := fmt.Sprintf("run `tokenturn connection invite %s` and send them the link", rec.Connection)
	if link, until, ok := r.invite(ctx, rec); ok {
		n.Link = link
		how = fmt.Sprintf("send them the link of this notice, which is good until %s", until.UTC().Format(time.RFC3339))
	}
	n.Summary = fmt.Sprintf("Procore no longer accepts the refresh token of %s, and no successor of it is saved. %s must allow access again: %s.",
		rec.Connection, rec.Pin.Whose(), how)
	return r.deliver(ctx, n)
}

func (r *run) invite(ctx context.Context, rec Record) (link token.Secret, until time.Time, ok bool) {
	if r.invitations == nil {
		return token.Secret{}, time.Time{}, false
	}
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) (err error) {
		link, until, err = r.invitations.Renew(ctx, rec, r.clock())
		return err
	})
	if err != nil {
		r.log.WarnContext(ctx, "no link could be made for a notice", "connection", rec.Connection.String(), "error", err)
	}
	return link, until, err == nil
}

// Whose names who consented, to people.
func (p *Pin) Whose() string {
	switch {
	case p == nil || p.ResourceOwner == "":
		return "The person who connected it"
	case p.Login == "":
		return "Procore user " + p.ResourceOwner
	}
	return fmt.Sprintf("%s (Procore user %s)", p.Login, p.ResourceOwner)
}

// nowTold writes that people were told of c.
func (r *run) nowTold(ctx context.Context, c token.Connection) error {
	for range maxSteps {
		rec, responses, err := r.loadRow(ctx, c)
		if err != nil || !rec.Untold {
			return err
		}
		rec.Untold = false
		if err = r.write(ctx, rec, responses, Change{}); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return ErrConflict
}
