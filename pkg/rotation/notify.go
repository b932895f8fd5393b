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
	// noticePeriod is how long an event that concerns a whole environment sends no
	// second notice.
	noticePeriod = daily
	// incidentSize connections of an environment that need a consent within
	// incidentTime have one cause and are one notice. Fewer are a notice each.
	incidentSize = 3
	incidentTime = time.Hour
)

// notify sends a notice about c. If it cannot be delivered, it is in the log only.
func (e *engine) notify(ctx context.Context, kind string, c token.Connection, format string, args ...any) {
	_ = e.deliver(ctx, Notice{Kind: kind, Connection: c, Environment: c.Environment, Summary: fmt.Sprintf(format,
		args...)})
}

// deliver logs a notice and sends it. It also logs an error of the delivery.
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

// claims are the events that this process has claimed or, if there are NoticeClaims,
// that any process has.
type claims struct {
	shared NoticeClaims // may be nil
	log    *slog.Logger

	mu    sync.Mutex
	until map[string]time.Time
}

// first claims an event until the given time and reports whether it was free. If the
// claims of other processes cannot be read, the event counts as free.
func (c *claims) first(ctx context.Context, event string, now, until time.Time) (free bool) {
	free, err := c.claim(ctx, event, now, until)
	if err != nil {
		c.log.WarnContext(ctx, "cannot check whether another process has claimed an event; it counts as free", "event", event,
			"error", err)
	}
	return free || err != nil
}

// claim is first for callers that handle the error themselves.
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

// claimed reports whether an event is claimed. It claims nothing.
func (c *claims) claimed(ctx context.Context, event string, now time.Time) bool {
	return !c.first(ctx, event, now, now)
}

var errBeingSent = errors.New("another process may be sending it")

// notifyOnce sends a notice of an event, unless an earlier one still covers it. The
// claim comes after the delivery: a crash in between costs a second notice, not the only
// one. It returns errBeingSent while another process may be sending the notice;
// that process may also have died.
func (e *engine) notifyOnce(ctx context.Context, event string, covers time.Duration, n Notice) error {
	now := e.clock()
	if e.claims.claimed(ctx, event, now) {
		return nil
	}
	if !e.claims.first(ctx, event+", being announced", now, now.Add(e.settings.Lease)) {
		return errBeingSent
	}
	err := e.deliver(ctx, n)
	if err == nil {
		e.claims.first(ctx, event, now, now.Add(covers))
	}
	return err
}

// notifyDaily sends a notice about an environment, at most once a day. which distinguishes
// events of one kind.
func (e *engine) notifyDaily(ctx context.Context, kind, environment, which, format string, args ...any) {
	_ = e.notifyOnce(ctx, kind+" "+environment+" "+which, noticePeriod,
		Notice{Kind: kind, Environment: environment, Summary: fmt.Sprintf(format, args...)})
}

// appError is a configuration error of the app of an environment, not of a single
// connection.
type appError struct {
	app  Application // as far as it is known
	text string
}

func (e *appError) Error() string { return e.text }

// environmentError is an error between tokenturn and an environment, such as a firewall.
type environmentError struct{ environment, text string }

func (e *environmentError) Error() string { return e.text }

func (e *engine) notifyOfConfigError(ctx context.Context, c token.Connection, cause error) {
	if ofApp, ok := errors.AsType[*appError](cause); ok {
		e.notifyDaily(ctx, NoticeConfigError, c.Environment, string(ofApp.app.ClientSecret.Fingerprint()), "%v", cause)
	} else if _, ok := errors.AsType[*environmentError](cause); ok {
		e.notifyDaily(ctx, NoticeConfigError, c.Environment, "", "%v", cause)
	} else {
		e.notify(ctx, NoticeConfigError, c, "%v", cause)
	}
}

// leavePending leaves the pending notices to a sweep, which also sees other connections
// with the same cause. It requests that sweep, unless one should have sent the notice
// already; then the next scheduled one does.
func (r *run) leavePending(ctx context.Context) {
	for _, rec := range r.pending {
		if rec.Refusal != nil && r.engine.clock().Sub(rec.Refusal.At) < r.engine.settings.Quiet {
			r.requests.sweepBy(ctx, rec.Refusal.At.Add(r.engine.settings.Quiet))
		}
	}
}

// notifyPending sends the notices about connections that need a consent. It does so at
// the end of a run, so that a common cause of many connections is one notice. The
// delivery is recorded afterwards: a crash in between costs a second notice, not the
// only one.
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
				r.engine.log.WarnContext(ctx, "the delivery of a notice could not be recorded; the notice will be sent again",
					"connection", rec.Connection.String(), "error", err)
			}
		}
	}
}

// notifyEnvironment sends the notices about connections of one environment that need a
// consent. It returns the connections that a delivered notice covers. The others are
// left to the next sweep.
func (r *run) notifyEnvironment(ctx context.Context, environment string, records []Record) (done []Record) {
	var together []Record
	for _, rec := range records {
		if len(records) >= incidentSize {
			together = records
			break
		}
		switch event, free := r.singleNotice(ctx, environment); {
		case !free:
			together = append(together, rec)
		case r.notifySingle(ctx, rec) == nil:
			r.engine.claims.first(ctx, event, r.engine.clock(), r.engine.clock().Add(incidentTime))
			done = append(done, rec)
		}
	}
	if len(together) == 0 {
		return done
	}
	err := r.notifyIncident(ctx, environment, together)
	if errors.Is(err, errBeingSent) {
		r.requests.sweepBy(ctx, r.engine.clock().Add(r.engine.settings.Lease))
	}
	if err != nil {
		return done
	}
	return append(done, together...)
}

// singleNotice reports whether the next connection of the environment that needs a
// consent gets a notice of its own, because only a few have needed one lately. It also
// returns the event to claim once that notice is delivered.
func (r *run) singleNotice(ctx context.Context, environment string) (event string, free bool) {
	for n := 1; n < incidentSize && !free; n++ {
		event = fmt.Sprintf("%s %s %d", NoticeNeedsConsent, environment, n)
		free = !r.engine.claims.claimed(ctx, event, r.engine.clock())
	}
	return event, free
}

func (r *run) notifyIncident(ctx context.Context, environment string, records []Record) error {
	var names []string
	for _, rec := range records[:min(len(records), 5)] {
		names = append(names, rec.Connection.String())
	}
	if len(records) > len(names) {
		names = append(names, fmt.Sprintf("and %d more", len(records)-len(names)))
	}
	cause := "Possible causes: the client secret was reset in the Developer Portal, the app's access was revoked, " +
		"or the server has a problem."
	if environment == "monthly-sandbox" {
		cause = "Procore overwrites this environment on the first working day of each month, which ends every consent in it."
	}
	which := fmt.Sprintf("Several connections of %s need a new consent: %s.", environment, strings.Join(names, ", "))
	if len(records) == 1 { // the others had notices of their own
		which = fmt.Sprintf("%s needs a new consent. Others of %s needed one within the last hour.", names[0], environment)
	}
	return r.engine.notifyOnce(ctx, NoticeNeedsConsent+" "+environment, incidentTime, Notice{Kind: NoticeNeedsConsent,
		Environment: environment,
		Summary: fmt.Sprintf("%s %s tokenturn tries their tokens again for a day. "+
			"List all with `tokenturn connection list`, and create a link for each with `tokenturn connection invite`.",
			which, cause)})
}

func (r *run) notifySingle(ctx context.Context, rec Record) error {
	n := Notice{Kind: NoticeNeedsConsent, Connection: rec.Connection, Environment: rec.Connection.Environment}
	how := fmt.Sprintf("run `tokenturn connection invite %s` and send them the link", rec.Connection)
	if link, until, ok := r.invite(ctx, rec); ok {
		n.Link = link
		how = fmt.Sprintf("send them the link in this notice, which is valid until %s", until.UTC().Format(time.RFC3339))
	}
	if rec.OnlyImported() {
		n.Summary = fmt.Sprintf("Procore refuses the refresh token that was imported for %s: it is mistyped, spent or "+
			"revoked, or was issued to another app. Run `tokenturn connection import %[1]s` with the right one, or ask the "+
			"person who uses Procore for %[1]s to allow access: %s.", rec.Connection, how)
	} else {
		n.Summary = fmt.Sprintf("Procore no longer accepts the refresh token of %s, and no newer token is saved. "+
			"%s must allow access again: %s.", rec.Connection, rec.Pin.Whose(), how)
	}
	if rec.Refusal.presents() {
		n.Summary += " tokenturn also tries the old token again for a day."
	}
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
		r.engine.log.WarnContext(ctx, "no link could be created for a notice", "connection", rec.Connection.String(), "error",
			err)
	}
	return link, until, err == nil
}

// Whose returns the name of the person who consented, as the subject of a sentence.
func (p *Pin) Whose() string {
	switch {
	case p == nil || p.ResourceOwner == "":
		return "The person who connected it"
	case p.Login == "":
		return "Procore user " + p.ResourceOwner
	}
	return fmt.Sprintf("%s (Procore user %s)", p.Login, p.ResourceOwner)
}

// Title is the notice in a line of ASCII, such as "sandbox/acme needs a new consent". A
// notice about several connections names their environment.
func (n Notice) Title() string {
	about := n.Connection.String()
	if n.Connection.IsZero() {
		about = n.Environment
	}
	title, known := titles[n.Kind]
	if !known {
		title = "%s: " + strings.ReplaceAll(n.Kind, "_", " ")
	}
	if n.Kind == NoticeNeedsConsent && n.Connection.IsZero() {
		title = "several connections of %s need a new consent"
	}
	return fmt.Sprintf(title, about)
}

// titles are the titles of notices by kind.
var titles = map[string]string{
	NoticeNeedsConsent:    "%s needs a new consent",
	NoticeRecovered:       "%s works again",
	NoticeUnknown:         "%s: the answer to a refresh was lost",
	NoticeConfigError:     "%s: a setting, secret or credential is wrong",
	NoticeQuarantined:     "%s: an answer with a token cannot be used",
	NoticeRejected:        "%s: a new token pair was rejected",
	NoticeSalvaged:        "%s: an answer was malformed, and its token is used",
	NoticeDrift:           "%s: the secret was changed outside tokenturn",
	NoticeUnsaved:         "%s: a new token pair could not be saved",
	NoticeLifetimeChanged: "%s: the lifetime of access tokens has changed",
	NoticeClock:           "%s: a clock is wrong",
	NoticeAppNotInstalled: "%s: the app must be installed in the company",
}
