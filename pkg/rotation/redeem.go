package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// presentation has everything that is needed to present a grant and to save the answer.
type presentation struct {
	app   Application
	key   *dataKey
	grant Grant
}

// redeem presents the current refresh token, or the app's credentials for a service
// account, once. A crash before Begin's write leaves nothing. A crash after it leaves an
// attempt with an unknown result, which a run recovers after the lease. A crash after
// Save is acknowledged leaves a response that any run may decide.
func (t *reconciliation) redeem(ctx context.Context) (*ConnectionReport, error) {
	p, end, err := t.preflight(ctx)
	if p == nil {
		return end, err
	}
	// If this run crashes, a sweep recovers the attempt in minutes, not at the next scheduled sweep.
	t.run.requests.sweepBy(ctx, t.engine.clock().Add(t.engine.settings.Lease+t.engine.settings.Quiet))
	if end, err := t.begin(ctx); t.presented == "" {
		return end, err
	}
	answer, posted := t.post(ctx, p, t.rec.Attempt.Until)
	if !posted {
		return t.attemptEnded(ctx, classNotSent, 0, errTooLateToPresent)
	}
	if t.rec.ServiceAccount {
		return t.clientAnswered(ctx, p, answer)
	}
	return t.answered(ctx, p, answer)
}

var errTooLateToPresent = errors.New("no time left in this attempt to present the refresh token")

// post presents the grant with one POST, or with none if the POST might end after the
// attempt does. Canceling ctx does not end it.
func (t *reconciliation) post(ctx context.Context, p *presentation, until time.Time) (answer Answer, posted bool) {
	// The process may have been frozen since the attempt was written. A POST that ends
	// after the lease may overlap with the POST of another attempt.
	if t.engine.clock().Add(t.engine.settings.RedeemTimeout).After(until) || !t.engine.settings.timeLeft(ctx, 0) {
		return Answer{}, false
	}
	t.hasPermit = false
	post, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.engine.settings.RedeemTimeout)
	defer cancel()
	answer = t.engine.issuer.Redeem(post, p.app, p.grant)
	answer.Wait = min(answer.Wait, longestWait)
	return answer, true
}

// longestWait bounds the wait that a server may ask for.
const longestWait = 15 * time.Minute

// preflight does everything that can fail before the token is presented. If it returns no
// presentation, the other results say how the run goes on.
func (t *reconciliation) preflight(ctx context.Context) (*presentation, *ConnectionReport, error) {
	redeem := act{step: Redeem}
	p, end, err := t.readyToPresent(ctx, redeem)
	if p == nil {
		return nil, end, err
	}
	if puts := t.recentPuts(); t.engine.settings.PutsPerDay > 0 && len(puts) >= t.engine.settings.PutsPerDay {
		wait := time.Unix(puts[0], 0).Add(daily).Sub(t.engine.clock())
		end, err := t.failure(ctx, Redeem, ResponseKey{}, classBudget, wait,
			fmt.Errorf("the secret of %s has had %d versions in 24 hours, which is the limit of the secret store", t.conn,
				len(puts)))
		return nil, end, err
	}
	seen, err := t.checkSecret(ctx)
	switch {
	case err != nil:
		end, err := t.secretFailure(ctx, Redeem, err)
		return nil, end, err
	case seen.adopt != nil:
		return nil, nil, t.adopt(ctx, *seen.adopt)
	case seen.drift != "" && t.rec.Current.VersionID != "": // an imported pair has nothing to put there yet
		t.notifyOfDrift(ctx, seen)
		t.rec.Published = ""
		return nil, nil, t.write(ctx, Change{})
	}
	t.seen = &seen
	if t.rec.ServiceAccount {
		p.grant.ClientCredentials = true
	} else if p.grant.RefreshToken, err = t.currentRefreshToken(ctx, seen); err != nil {
		end, err := t.openFailed(ctx, Redeem, ResponseKey{}, err)
		return nil, end, err
	}
	return p, nil, nil
}

// readyToPresent gets a permit of the rate limiter, a data key and the app credentials.
// If it cannot, it returns no presentation, and the other results say how the run goes
// on. step is the step that backs off after a failure.
func (t *reconciliation) readyToPresent(ctx context.Context, step act) (*presentation, *ConnectionReport, error) {
	environment := t.conn.Environment
	if o, blocked := t.run.breaker.blocks(environment); blocked {
		return nil, t.waitForBreaker(ctx, o), nil
	}
	if !t.hasPermit {
		waited, err := t.run.limiter.wait(ctx, environment, t.run.due[environment])
		if err != nil {
			return nil, t.outOfTime(), nil
		}
		t.hasPermit = true
		if waited { // plan again at the present time; Begin's condition shows whether another run has changed the row
			return nil, nil, nil
		}
	}
	if !t.engine.settings.timeLeft(ctx, 0) {
		return nil, t.outOfTime(), nil
	}
	fail := func(class string, err error) (*presentation, *ConnectionReport, error) {
		end, err := t.failure(ctx, step.step, step.response, class, 0, err)
		return nil, end, err
	}
	var p presentation
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) (err error) {
		p.key, err = t.run.keys.ready(ctx)
		return err
	})
	if err != nil {
		return fail(classStore, err)
	}
	if p.app, err = t.fittingApplication(ctx); err != nil {
		return fail(classOfApp(err), err)
	}
	return &p, nil, nil
}

// shortWait is how long a connection waits for the circuit breaker within this run; it
// leaves a longer wait to a later run. Procore's spike limit counts ten seconds.
const shortWait = 12 * time.Second

// waitForBreaker ends the run for this connection, unless the circuit breaker closes soon.
func (t *reconciliation) waitForBreaker(ctx context.Context, o opened) *ConnectionReport {
	wait := o.until.Sub(t.engine.clock())
	if o.outcome == Deferred && wait <= shortWait && t.engine.settings.timeLeft(ctx, wait) &&
		t.sleep(ctx, wait) == nil {
		t.loaded = false
		return nil // plan again
	}
	t.detail = o.why
	r := t.report(o.outcome, o.until.UTC(), nil)
	return &r
}

// outOfTime ends the run for this connection and for the others of its environment. They
// stay due.
func (t *reconciliation) outOfTime() *ConnectionReport {
	t.run.breaker.outOfTime(t.conn.Environment)
	t.detail = errNoTime.Error()
	r := t.report(Deferred, time.Time{}, nil)
	return &r
}

// fittingApplication returns the app credentials, if the connection's consent was given to
// that app.
func (t *reconciliation) fittingApplication(ctx context.Context) (Application, error) {
	app, err := t.run.application(ctx, t.conn.Environment)
	if err != nil {
		err = fmt.Errorf("reading the app credentials for %s: %w", t.conn, err)
		if errors.Is(err, ErrNoApplication) {
			return app, &appError{Application{Environment: t.conn.Environment}, fmt.Sprintf("%v: run `tokenturn app set %s`",
				err, t.conn.Environment)}
		}
		return app, err
	}
	if pin := t.rec.Pin; pin != nil && (pin.Client != "" && pin.Client != app.client() ||
		pin.Environment != t.conn.Environment) {
		return app, &appError{app, fmt.Sprintf("%s belongs to another client id than the app credentials of %s: "+
			"run `tokenturn app set %[2]s` with the right credentials, or invite the person again with "+
			"`tokenturn connection invite %[1]s`", t.conn, t.conn.Environment)}
	}
	return app, nil
}

func classOfApp(err error) string {
	if _, ofApp := errors.AsType[*appError](err); ofApp {
		return classConfig
	}
	return classStore
}

// currentRefreshToken opens the current pair. It reads the response or, if the ledger has
// lost it or it cannot be opened, the version that the secret shows, if its id is right.
func (t *reconciliation) currentRefreshToken(ctx context.Context, seen secretView) (token.Secret, error) {
	kept := TokenResponse{Connection: t.conn, Key: t.rec.Current.Response}
	if i := slices.IndexFunc(t.responses, func(m TokenResponse) bool { return m.Key == kept.Key }); i >= 0 {
		kept = t.responses[i]
	}
	refresh, err := t.refreshTokenOf(ctx, kept)
	if err == nil || seen.current.ID != t.rec.Current.VersionID {
		return refresh, err
	}
	if doc, unreadable := token.ParseDocument(seen.current.Value); unreadable == nil {
		if shown, unopened := t.refreshTokenOf(ctx, responseOf(doc)); unopened == nil {
			return shown, nil
		}
	}
	return token.Secret{}, err
}

func (t *reconciliation) refreshTokenOf(ctx context.Context, m TokenResponse) (token.Secret, error) {
	body, err := t.open(ctx, m)
	if err != nil {
		return token.Secret{}, err
	}
	refresh := t.engine.issuer.Parse(body).Pair.RefreshToken
	if refresh.IsZero() || refresh.Fingerprint() != t.rec.Current.Fingerprint {
		return token.Secret{}, fmt.Errorf("the stored pair of %s is not the one in the ledger: "+
			"restore the ledger, or invite the person again with `tokenturn connection invite %[1]s`", t.conn)
	}
	return refresh, nil
}

// begin writes the attempt that gives the right to present. It sets presented if this run
// has that right.
func (t *reconciliation) begin(ctx context.Context) (*ConnectionReport, error) {
	now := t.engine.clock().UTC()
	a := Attempt{ID: newID(), Fingerprint: t.rec.Current.Fingerprint, BegunAt: now,
		Until: now.Add(t.engine.settings.Lease), Presentations: 1}
	var history []Event
	if old := t.rec.Attempt; old != nil {
		history = append(history, Event{Kind: "ended", Attempt: old.ID,
			Detail: "its answer was lost, and no successor is saved anywhere; presenting again"})
		if old.Fingerprint == a.Fingerprint && !t.rec.ServiceAccount {
			a.Presentations += old.Presentations
		}
	}
	before := t.rec.Revision
	t.rec.Attempt = &a
	if r := t.rec.Refusal; r != nil {
		r.tried(now)
	}
	err := t.write(ctx, Change{History: history})
	if errors.Is(err, ErrConflict) {
		return nil, err
	}
	if err != nil { // the row shows whether the write took effect
		if loadErr := t.load(ctx); loadErr != nil {
			return nil, errors.Join(err, loadErr)
		}
		switch mine := t.rec.Attempt != nil && t.rec.Attempt.ID == a.ID; {
		case !mine && t.rec.Revision == before:
			return t.failure(ctx, Redeem, ResponseKey{}, classStore, 0, err)
		case !mine:
			return nil, errors.Join(err, ErrConflict)
		}
	}
	t.presented = a.ID
	return nil, nil
}

// answered acts on the answer to the POST.
func (t *reconciliation) answered(ctx context.Context, p *presentation, answer Answer) (*ConnectionReport, error) {
	if answer.Class == Captured { // save it before anything else
		key := ResponseKey{t.rec.Epoch, t.rec.Generation + 1, t.presented}
		end, err := t.captured(ctx, p, t.response(p, answer.Body, key, t.rec.Attempt.Fingerprint, t.rec.renewal()),
			answer.Body)
		t.updateBreaker(ctx, answer)
		return end, err
	}
	t.updateBreaker(ctx, answer)
	cause := fmt.Errorf("refreshing %s: %s", t.conn, answer.Detail)
	switch answer.Class {
	case RateLimited:
		class := classIssuer
		if answer.Wait > 0 { // a forced rotation does not end a wait that the server asked for
			class = classRateLimited
		}
		return t.attemptEnded(ctx, class, answer.Wait, cause)
	case NotSent:
		return t.attemptEnded(ctx, classNotSent, 0, cause)
	case Refused:
		t.refusedAttempt, t.searched = t.presented, false // recover decides what follows
		return nil, nil
	case ClientFault, GrantFault:
		return t.clientFault(ctx, p.app, answer)
	case RequestFault:
		if t.run.breaker.requestFault(t.conn.Environment) {
			t.run.breaker.openForRun(t.conn.Environment,
				"the server called the requests of three connections invalid: "+answer.Detail)
		}
		return t.attemptEnded(ctx, classConfig, 0, cause)
	case OddRefusal:
		return t.oddRefusal(ctx, answer, cause)
	}
	return t.answerUnknown(ctx, answer, cause)
}

// updateBreaker opens the circuit breaker if the answer asks for a wait or shows that the
// login host is down.
func (t *reconciliation) updateBreaker(ctx context.Context, answer Answer) {
	wait := answer.Wait
	switch {
	case answer.Class == RateLimited && wait == 0:
		wait = time.Minute
	case answer.Class == NotSent,
		(answer.Class == UnknownResult || answer.Class == OddRefusal) && t.run.breaker.answerLost(t.conn.Environment):
		wait = max(wait, time.Minute)
	}
	if wait > 0 {
		t.run.breaker.openFor(ctx, t.conn.Environment, wait, answer.Detail)
	}
}

// answerUnknown: whether the token is spent is not known. A run checks that after the
// quiet period, or after the wait that the server asked for if that is longer.
func (t *reconciliation) answerUnknown(ctx context.Context, answer Answer, cause error) (*ConnectionReport, error) {
	over := t.notifyOfUnknown(ctx, answer)
	if asked := t.engine.clock().Add(answer.Wait); asked.After(over) {
		over = asked
		if _, err := t.failure(ctx, Recover, ResponseKey{}, classRateLimited, answer.Wait, cause); err != nil &&
			!errors.Is(err, ErrConflict) {
			return nil, err
		}
	}
	t.detail = answer.Detail
	r := t.report(Unknown, over, nil)
	return &r, nil
}

// notifyOfUnknown notifies people of the first unknown result in a row. It returns when a
// run checks it.
func (t *reconciliation) notifyOfUnknown(ctx context.Context, answer Answer) (over time.Time) {
	over = t.rec.Attempt.Until.Add(t.engine.settings.Quiet)
	if t.rec.Attempt.Presentations == 1 {
		t.engine.notify(ctx, NoticeUnknown, t.conn, "The answer to a refresh of %s was lost (%s). "+
			"tokenturn checks again automatically after %s; no action is needed.",
			t.conn, answer.Detail, over.UTC().Format(time.RFC3339))
	}
	return over
}

// oddRefusals is how many refusals in a row that are not OAuth errors make a configuration
// error, such as a firewall in between.
const oddRefusals = 3

// longestOdd is the longest wait after that.
const longestOdd = 6 * time.Hour

// oddRefusal: the server refused with something other than an OAuth error. Whether the
// token is spent is not known, so it is presented again as after a lost answer, but less
// and less often once this repeats.
func (t *reconciliation) oddRefusal(ctx context.Context, answer Answer, cause error) (*ConnectionReport, error) {
	count, wait := t.countOdd()
	if count < oddRefusals {
		over := t.notifyOfUnknown(ctx, answer)
		if _, err := t.failure(ctx, Redeem, ResponseKey{}, classOdd, over.Sub(t.engine.clock()), cause); err != nil {
			return nil, err
		}
		r := t.report(Unknown, over, nil)
		return &r, nil
	}
	if _, err := t.failure(ctx, Redeem, ResponseKey{}, classConfig, wait, t.notOAuth(answer)); err != nil {
		return nil, err
	}
	r := t.report(ConfigError, t.engine.clock().Add(wait).UTC(), nil)
	return &r, nil
}

func (t *reconciliation) notOAuth(answer Answer) error {
	return &environmentError{t.conn.Environment, fmt.Sprintf("the login host of %s refuses requests with an answer "+
		"that is not an OAuth error (%s): check for a firewall or a proxy in between, and check the login URL",
		t.conn.Environment, answer.Detail)}
}

// countOdd returns how many odd refusals in a row there are with this one, and the
// back-off after it if they are a configuration error.
func (t *reconciliation) countOdd() (count int, wait time.Duration) {
	count = 1
	if f := t.rec.failure(Redeem, ResponseKey{}); f != nil && (f.Class == classOdd || f.Class == classConfig &&
		f.Count >= oddRefusals) {
		count = f.Count + 1
	}
	return count, min(30*time.Minute<<min(max(count-oddRefusals, 0), 10), longestOdd)
}

// captured saves the answer before anything reads it.
func (t *reconciliation) captured(ctx context.Context, p *presentation, m TokenResponse,
	body token.Secret) (*ConnectionReport, error) {
	escrow := t.escrow
	if implausiblyLarge(body) {
		escrow = nil
	}
	tried, err := t.engine.save(ctx, m, escrow)
	t.escrowTried = tried
	if tried { // escrow may have made the secret
		t.seen = nil
	}
	if err != nil {
		t.engine.notify(ctx, NoticeUnsaved, t.conn, "A new token pair of %s could not be saved in either store. "+
			"A later run tries the old pair. If the server refuses it, you get a needs_consent notice; no action is "+
			"needed now.", t.conn)
		t.detail = err.Error()
		r := t.report(Unknown, t.engine.clock().Add(t.engine.settings.Lease+t.engine.settings.Quiet), nil)
		return &r, nil
	}
	t.bodies[m.Key] = body
	t.searched, t.loaded = false, !tried
	if t.loaded {
		t.responses = append(slices.Clone(t.responses), m)
	}
	return nil, nil
}

// response makes the response that saves an answer.
func (t *reconciliation) response(p *presentation, body token.Secret, key ResponseKey, parent token.Fingerprint,
	source Source) TokenResponse {
	m := TokenResponse{Connection: t.conn, Key: key, Parent: parent, Source: source,
		SavedAt: t.engine.clock().UTC().Truncate(time.Millisecond), State: Saved, APIURL: p.app.APIURL,
		Stack: t.engine.settings.Stack, Client: p.app.client()}
	if t.rec.Pin != nil {
		m.Company = t.rec.Pin.Company
	}
	if t.rec.Current != nil {
		m.Before = t.rec.Current.Lifetime
	}
	m.Sealed = p.key.seal(body, t.conn, m.Key)
	return m
}

// attemptEnded: the refresh token was not spent. The attempt ends, and Redeem backs off.
func (t *reconciliation) attemptEnded(ctx context.Context, class string, wait time.Duration,
	cause error) (*ConnectionReport, error) {
	mine := t.presented
	t.presented = ""
	for range maxSteps {
		t.rec.unspent(t.engine.settings.Quiet, t.engine.clock())
		end, err := t.failure(ctx, Redeem, ResponseKey{}, class, wait, cause, Event{Kind: "ended", Attempt: mine,
			Detail: cause.Error()})
		if !errors.Is(err, ErrConflict) {
			return end, err
		}
		if err := t.load(ctx); err != nil {
			return nil, err
		}
		if t.rec.Attempt == nil || t.rec.Attempt.ID != mine {
			return nil, nil
		}
	}
	return nil, cause
}

// unspent takes back a presentation that is known to have spent nothing. It clears the
// attempt or, after an earlier presentation with an unknown result, keeps the attempt for
// that one. A run recovers it before the token is presented again.
func (r *Record) unspent(quiet time.Duration, now time.Time) {
	if r.Refusal != nil {
		r.Refusal.Tries = max(0, r.Refusal.Tries-1)
		r.Refusal.schedule(now)
	}
	if r.Attempt.Presentations <= 1 {
		r.Attempt = nil
		return
	}
	r.Attempt.Presentations--
	r.Attempt.Until = now.Add(-quiet).UTC()
}

// clientFault: the server does not accept the app credentials. They may have been
// replaced since this run read them, or there is a second client secret.
func (t *reconciliation) clientFault(ctx context.Context, app Application, answer Answer) (*ConnectionReport, error) {
	if t.run.otherCredentials(ctx, app) {
		t.rec.unspent(t.engine.settings.Quiet, t.engine.clock())
		ended := Event{Kind: "ended", Attempt: t.presented,
			Detail: "the server refused the app credentials; there are others to try"}
		t.presented = ""
		return nil, t.write(ctx, Change{History: []Event{ended}})
	}
	return t.attemptEnded(ctx, classConfig, 0, t.appRefused(app, answer))
}

// appRefused stops the run's other connections of the app.
func (t *reconciliation) appRefused(app Application, answer Answer) *appError {
	why := fmt.Sprintf("the server does not accept the app credentials of %s (%s): run `tokenturn app set %s`",
		t.conn.Environment, answer.Detail, t.conn.Environment)
	t.run.breaker.openForRun(t.conn.Environment, why)
	return &appError{app, why}
}
