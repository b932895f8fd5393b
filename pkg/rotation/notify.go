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
	// is not announced again.
	announcedFor = daily
	// many connections of an environment that need a consent within an hour have
	// one cause, and are one notice. Fewer are a notice each.
	many     = 3
	oneCause = time.Hour
)

// notify notifies people of c. What cannot be delivered is in the log only.
func (e *engine) notify(ctx context.Context, kind string, c token.Connection, format string, args ...any) {
	_ = e.deliver(ctx, Notice{Kind: kind, Connection: c, Environment: c.Environment, Summary: fmt.Sprintf(format,
		args...)})
}

// deliver logs a notice and sends it. The error is logged, too.
func (e *engine) deliver(ctx context.Context, n Notice) error {
	n.At = e.clock().UTC()
	about := n.Connection.String()
	if n.Connection.IsZero() {
		about = n.Environment
	}
	e.log.WarnContext(ctx, "notice", "kind", n.Kind, "about", about, "summary", n.Summary)
	if e.notifier == nil {
		return nil
	}
	err := e.notifier.Notify(context.WithoutCancel(ctx), n)
	if err != nil {
		e.log.ErrorContext(ctx, "notice not delivered", "kind", n.Kind, "about", about, "error", err)
	}
	return err
}

// claims are the events that this process, and where there are NoticeClaims all
// of them, have claimed.
type claims struct {
	shared NoticeClaims // may be nil
	log    *slog.Logger

	mu    sync.Mutex
	until map[string]time.Time
}

// first claims an event until then and reports whether it was free. Where it
// cannot be found out whether another process has claimed it, it counts as free.
func (c *claims) first(ctx context.Context, event string, now, until time.Time) (free bool) {
	free, err := c.claim(ctx, event, now, until)
	if err != nil {
		c.log.WarnContext(ctx, "whether another process has claimed an event cannot be found out; it counts as free", "event",
			event, "error", err)
	}
	return free || err != nil
}

// claim is first for those who decide what an error means.
func (c *claims) claim(ctx context.Context, event string, now, until time.Time) (free bool, err error) {
	if !c.own(event, now, until) {
		return false, nil
	}
	if c.shared == nil {
		return true, nil
	}
	err = within(ctx, storeTimeout, func(ctx context.Context) (err error) {
		free, err = c.shared.First(ctx, event, now, until)
		return err
	})
	return free, err
}

// own claims an event within this process.
func (c *claims) own(event string, now, until time.Time) (free bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.until[event]) {
		return false
	}
	maps.DeleteFunc(c.until, func(_ string, until time.Time) bool { return !now.Before(until) })
	c.until[event] = until
	return true
}

// announced reports whether an event is claimed. It claims nothing.
func (c *claims) announced(ctx context.Context, event string, now time.Time) bool {
	return !c.first(ctx, event, now, now)
}

var errBeingAnnounced = errors.New("another process may be announcing it")

// announceOnce notifies people of an event, unless that was done already and
// covers what happens now. The claim comes after the delivery: a crash in between
// costs a second notice, not the only one. It returns errBeingAnnounced while
// another process may be at it, of which nobody knows whether it lives.
func (e *engine) announceOnce(ctx context.Context, event string, covers time.Duration, n Notice) error {
	now := e.clock()
	if e.claims.announced(ctx, event, now) {
		return nil
	}
	if !e.claims.first(ctx, event+", being announced", now, now.Add(e.settings.Lease)) {
		return errBeingAnnounced
	}
	err := e.deliver(ctx, n)
	if err == nil {
		e.claims.first(ctx, event, now, now.Add(covers))
	}
	return err
}

// announce notifies people, once a day, of what concerns an environment. which
// distinguishes events of one kind.
func (e *engine) announce(ctx context.Context, kind, environment, which, format string, args ...any) {
	_ = e.announceOnce(ctx, kind+" "+environment+" "+which, announcedFor,
		Notice{Kind: kind, Environment: environment, Summary: fmt.Sprintf(format, args...)})
}

// appError is a configuration fault of an environment's app rather than of one
// of its connections.
type appError struct {
	app  Application // as far as it is known
	text string
}

func (e *appError) Error() string { return e.text }

// environmentError is a fault of what lies between us and an environment.
type environmentError struct{ environment, text string }

func (e *environmentError) Error() string { return e.text }

func (e *engine) notifyOfConfigError(ctx context.Context, c token.Connection, cause error) {
	if ofApp, ok := errors.AsType[*appError](cause); ok {
		e.announce(ctx, NoticeConfigError, c.Environment, string(ofApp.app.ClientSecret.Fingerprint()), "%v", cause)
	} else if _, ok := errors.AsType[*environmentError](cause); ok {
		e.announce(ctx, NoticeConfigError, c.Environment, "", "%v", cause)
	} else {
		e.notify(ctx, NoticeConfigError, c, "%v", cause)
	}
}

// leavePending asks for a sweep, which sees those that have the same cause as well.
// Where one should have notified already, the schedule's next one will.
func (r *run) leavePending(ctx context.Context) {
	for _, rec := range r.pending {
		if rec.Refusal != nil && r.engine.clock().Sub(rec.Refusal.At) < r.engine.settings.Quiet {
			r.requests.sweepBy(ctx, rec.Refusal.At.Add(r.engine.settings.Quiet))
		}
	}
}

// notifyPending notifies people who must consent, at the end of a run, so that a
// cause which many connections have in common is one notice. That it was delivered
// is written afterwards: a crash in between costs a second notice, not the only one.
func (r *run) notifyPending(ctx context.Context) {
	slices.SortFunc(r.pending, func(a, b Record) int { return cmp.Compare(a.Connection.String(), b.Connection.String()) })
	of := map[string][]Record{}
	for _, rec := range r.pending {
		of[rec.Connection.Environment] = append(of[rec.Connection.Environment], rec)
	}
	for _, environment := range slices.Sorted(maps.Keys(of)) {
		for _, rec := range r.notifyEnvironment(ctx, environment, of[environment]) {
			_, err := r.engine.update(ctx, rec.Connection, func(rec *Record, _ []TokenResponse) (Change, bool, error) {
				was := rec.NoticePending
				rec.NoticePending = false
				return Change{}, was, nil
			})
			if err != nil {
				r.engine.log.WarnContext(ctx, "that people were notified is not written; they will be notified again", "connection",
					rec.Connection.String(), "error", err)
			}
		}
	}
}

// notifyEnvironment notifies people of connections of one environment that need a
// consent, and returns those of which they were notified. The others are left to
// the next sweep.
func (r *run) notifyEnvironment(ctx context.Context, environment string, records []Record) (done []Record) {
	var together []Record
	for _, rec := range records {
		if len(records) >= many {
			together = records
			break
		}
		switch place, free := r.single(ctx, environment); {
		case !free:
			together = append(together, rec)
		case r.notifySingle(ctx, rec) == nil:
			r.engine.claims.first(ctx, place, r.engine.clock(), r.engine.clock().Add(oneCause))
			done = append(done, rec)
		}
	}
	if len(together) == 0 {
		return done
	}
	err := r.notifyIncident(ctx, environment, together)
	if errors.Is(err, errBeingAnnounced) {
		r.requests.sweepBy(ctx, r.engine.clock().Add(r.engine.settings.Lease))
	}
	if err != nil {
		return done
	}
	return append(done, together...)
}

// single reports whether so few needed a consent lately that one more is a notice
// of its own, and the event to claim when that was delivered.
func (r *run) single(ctx context.Context, environment string) (place string, free bool) {
	for n := 1; n < many && !free; n++ {
		place = fmt.Sprintf("%s %s %d", NoticeNeedsConsent, environment, n)
		free = !r.engine.claims.announced(ctx, place, r.engine.clock())
	}
	return place, free
}

func (r *run) notifyIncident(ctx context.Context, environment string, records []Record) error {
	var names []string
	for _, rec := range records[:min(len(records), 5)] {
		names = append(names, rec.Connection.String())
	}
	if len(records) > len(names) {
		names = append(names, fmt.Sprintf("and %d more", len(records)-len(names)))
	}
	cause := "The client secret may have been reset in the Developer Portal, the app's access revoked, " +
		"or the server is in trouble."
	if environment == "monthly-sandbox" {
		cause = "Procore overwrites this environment on the first working day of each month, which ends every consent in it."
	}
	return r.engine.announceOnce(ctx, NoticeNeedsConsent+" "+environment, oneCause, Notice{Kind: NoticeNeedsConsent,
		Environment: environment,
		Summary: fmt.Sprintf(
			"Several connections of %s need a consent: %s. %s tokenturn tries their tokens again for a day. "+
				"See all with `tokenturn connection list`, and make a link for each with `tokenturn connection invite`.",
			environment, strings.Join(names, ", "), cause)})
}

func (r *run) notifySingle(ctx context.Context, rec Record) error {
	n := Notice{Kind: NoticeNeedsConsent, Connection: rec.Connection, Environment: rec.Connection.Environment}
	how := fmt.Sprintf("run `tokenturn connection invite %s` and send them the link", rec.Connection)
	if link, until, ok := r.invite(ctx, rec); ok {
		n.Link = link
		how = fmt.Sprintf("send them the link of this notice, which is good until %s", until.UTC().Format(time.RFC3339))
	}
	n.Summary = fmt.Sprintf("Procore no longer accepts the refresh token of %s, and no successor of it is saved. "+
		"%s must allow access again: %s.",
		rec.Connection, rec.Pin.Whose(), how)
	return r.engine.deliver(ctx, n)
}

func (r *run) invite(ctx context.Context, rec Record) (link token.Secret, until time.Time, ok bool) {
	if r.invitations == nil {
		return token.Secret{}, time.Time{}, false
	}
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) (err error) {
		link, until, err = r.invitations.Renew(ctx, rec, r.engine.clock())
		return err
	})
	if err != nil {
		r.engine.log.WarnContext(ctx, "no link could be made for a notice", "connection", rec.Connection.String(), "error",
			err)
	}
	return link, until, err == nil
}

// Whose names the person who consented, for a text that people read.
func (p *Pin) Whose() string {
	switch {
	case p == nil || p.ResourceOwner == "":
		return "The person who connected it"
	case p.Login == "":
		return "Procore user " + p.ResourceOwner
	}
	return fmt.Sprintf("%s (Procore user %s)", p.Login, p.ResourceOwner)
}
