package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// presentation is everything at hand that presenting a refresh token and saving
// the answer needs.
type presentation struct {
	app   Application
	key   *dataKey
	grant Grant
}

// redeem presents the current refresh token, once, or a service account's
// credentials. A crash before Begin's write leaves nothing; after it, an attempt
// whose end is unknown, which is looked into after its lease; after Save's
// acknowledgement, a response that anybody may decide.
func (t *turn) redeem(ctx context.Context) (*ConnectionReport, error) {
	p, end, err := t.preflight(ctx)
	if p == nil {
		return end, err
	}
	// A crashed attempt is looked at in minutes rather than at the next
	// scheduled sweep.
	t.sweepBy(ctx, t.clock().Add(t.settings.Lease+t.settings.Quiet))
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	// The process may have been frozen since: a POST that could end after the
	// lease may meet another one's.
	if t.clock().Add(t.settings.RedeemTimeout).After(t.rec.Attempt.Until) || !t.settings.timeLeft(ctx, 0) {
		return t.attemptEnded(ctx, classNotSent, 0, errors.New("no time left in this attempt to present the refresh token"))
	}
	t.hasTurn = false
	post, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.settings.RedeemTimeout)
	answer := t.issuer.Redeem(post, p.app, p.grant)
	cancel()
	if p.grant.ClientCredentials {
		return t.clientAnswered(ctx, p, answer)
	}
	return t.answered(ctx, p, answer)
}

// preflight does everything that can fail before a token is at stake. A nil
// presentation comes with what the turn does instead.
func (t *turn) preflight(ctx context.Context) (*presentation, *ConnectionReport, error) {
	if h, halted := t.halted(t.conn.Environment); halted {
		return nil, t.rest(ctx, h), nil
	}
	if !t.hasTurn {
		waited, err := t.pace.wait(ctx, t.conn.Environment)
		if err != nil {
			return nil, t.noTime(), nil
		}
		t.hasTurn = true
		if waited { // and meanwhile another run may have been here: plan again
			return nil, nil, nil
		}
	}
	if !t.settings.timeLeft(ctx, 0) {
		return nil, t.noTime(), nil
	}
	fail := func(class string, wait time.Duration, err error) (*presentation, *ConnectionReport, error) {
		end, err := t.failure(ctx, Redeem, ResponseKey{}, class, wait, err)
		return nil, end, err
	}
	var p presentation
	err := within(ctx, storeTimeout, func(ctx context.Context) (err error) {
		p.key, err = t.keys.ready(ctx)
		return err
	})
	if err != nil {
		return fail(classStore, 0, err)
	}
	if p.app, err = t.fittingApplication(ctx); err != nil {
		return fail(classOfApp(err), 0, err)
	}
	if puts := t.recentPuts(); t.settings.PutsPerDay > 0 && len(puts) >= t.settings.PutsPerDay {
		wait := time.Unix(puts[0], 0).Add(24 * time.Hour).Sub(t.clock())
		return fail(classBudget, wait, fmt.Errorf("the secret of %s has had %d versions in 24 hours, as many as the secret store takes", t.conn, len(puts)))
	}
	seen, err := t.checkSecret(ctx)
	switch {
	case err != nil:
		end, err := t.secretFailure(ctx, Redeem, err)
		return nil, end, err
	case seen.adopt != nil:
		return nil, nil, t.adopt(ctx, *seen.adopt)
	case seen.drift != "" && t.rec.Current.VersionID != "": // an imported pair has nothing to put there yet
		t.tellDrift(ctx, seen)
		t.rec.Published = ""
		return nil, nil, t.write(ctx, Change{})
	}
	if t.rec.ServiceAccount {
		p.grant.ClientCredentials = true
	} else if p.grant.RefreshToken, err = t.currentRefreshToken(ctx, seen); err != nil {
		return fail(classStore, 0, err)
	}
	return &p, nil, nil
}

// shortRest is how long a turn waits for an environment rather than leave the
// connection to a later run: Procore's spike limit counts ten seconds.
const shortRest = 12 * time.Second

// rest ends the turn, unless what is to be waited for is soon over.
func (t *turn) rest(ctx context.Context, h halt) *ConnectionReport {
	wait := h.until.Sub(t.clock())
	if h.outcome == Deferred && wait <= shortRest && t.settings.timeLeft(ctx, wait) {
		select {
		case <-time.After(wait):
			return nil // plan again
		case <-ctx.Done():
		}
	}
	t.detail = h.why
	r := t.report(h.outcome, h.until.UTC(), nil)
	return &r
}

// noTime ends the turn because the run has to; the connection stays due.
func (t *turn) noTime() *ConnectionReport {
	t.outOfTime.Store(true)
	t.detail = errNoTime.Error()
	r := t.report(Deferred, time.Time{}, nil)
	return &r
}

// fittingApplication gives the app credentials that the connection's consent was given to.
func (t *turn) fittingApplication(ctx context.Context) (Application, error) {
	app, err := t.application(ctx, t.conn.Environment)
	if err != nil {
		err = fmt.Errorf("reading the app credentials for %s: %w", t.conn, err)
		if errors.Is(err, ErrNoApplication) {
			return app, &appError{Application{Environment: t.conn.Environment}, fmt.Sprintf("%v: run `tokenturn app set %s`", err, t.conn.Environment)}
		}
		return app, err
	}
	if pin := t.rec.Pin; pin != nil && (pin.Client != "" && pin.Client != token.NewSecret(app.ClientID).Fingerprint() ||
		pin.Environment != t.conn.Environment) {
		return app, &appError{app, fmt.Sprintf("%s belongs to another client id than the app credentials of %s: run `tokenturn app set %[2]s` with the right ones, or invite anew",
			t.conn, t.conn.Environment)}
	}
	return app, nil
}

func classOfApp(err error) string {
	if _, ofApp := errors.AsType[*appError](err); ofApp {
		return classConfig
	}
	return classStore
}

// currentRefreshToken opens the current pair: from its response or, where the
// ledger has lost that, from the version that the secret store shows, found by its id.
func (t *turn) currentRefreshToken(ctx context.Context, seen secretView) (token.Secret, error) {
	m := TokenResponse{Connection: t.conn, Key: t.rec.Current.Response}
	if i := slices.IndexFunc(t.responses, func(m TokenResponse) bool { return m.Key == t.rec.Current.Response }); i >= 0 {
		m = t.responses[i]
	} else if doc, err := token.ParseDocument(seen.current.Value); err == nil && seen.current.ID == t.rec.Current.VersionID {
		m = responseOf(doc)
	}
	body, err := t.open(ctx, m)
	if err != nil {
		return token.Secret{}, err
	}
	refresh := t.issuer.Parse(body).Pair.RefreshToken
	if refresh.IsZero() || refresh.Fingerprint() != t.rec.Current.Fingerprint {
		return token.Secret{}, fmt.Errorf("the stored pair of %s is not the one in the ledger; restore it or invite anew", t.conn)
	}
	return refresh, nil
}

// begin writes the attempt that gives the right to present.
func (t *turn) begin(ctx context.Context) error {
	now := t.clock().UTC()
	a := Attempt{ID: newID(), Fingerprint: t.rec.Current.Fingerprint, BegunAt: now, Until: now.Add(t.settings.Lease), Presentations: 1}
	var history []Event
	if old := t.rec.Attempt; old != nil {
		history = append(history, Event{Kind: "ended", Attempt: old.ID, Detail: "its answer was lost and nothing was saved anywhere; presenting again"})
		if old.Fingerprint == a.Fingerprint && !t.rec.ServiceAccount {
			a.Presentations += old.Presentations
		}
	}
	t.rec.Attempt = &a
	err := t.write(ctx, Change{History: history})
	if errors.Is(err, ErrConflict) {
		return err
	}
	// Loading gives the revision for what follows and tells, where the write's
	// answer was lost, whether it took effect.
	if loadErr := t.load(ctx); loadErr != nil {
		return errors.Join(err, loadErr)
	}
	if t.rec.Attempt == nil || t.rec.Attempt.ID != a.ID {
		return errors.Join(err, ErrConflict)
	}
	t.presented = a.ID
	return nil
}

// answered acts on what came of the POST.
func (t *turn) answered(ctx context.Context, p *presentation, answer Answer) (*ConnectionReport, error) {
	t.heed(ctx, answer)
	cause := fmt.Errorf("refreshing %s: %s", t.conn, answer.Detail)
	switch answer.Class {
	case Captured:
		return t.captured(ctx, p, answer.Body)
	case RateLimited:
		return t.attemptEnded(ctx, classRateLimited, answer.Wait, cause)
	case NotSent:
		return t.attemptEnded(ctx, classNotSent, 0, cause)
	case Refused:
		t.refusal, t.looked = t.presented, false // look says what that means
		return nil, nil
	case ClientFault, GrantFault:
		return t.clientFault(ctx, p.app, answer)
	case RequestFault:
		if t.requestFault(t.conn.Environment) {
			t.stopApp(t.conn.Environment, "three connections' requests were called faulty: "+answer.Detail)
		}
		return t.attemptEnded(ctx, classConfig, 0, cause)
	}
	return t.answerUnknown(ctx, answer, cause)
}

// heed leaves the login host alone where an answer asks for that, or shows that it is down.
func (t *turn) heed(ctx context.Context, answer Answer) {
	wait := answer.Wait
	switch {
	case answer.Class == RateLimited && wait == 0:
		wait = time.Minute
	case answer.Class == NotSent,
		(answer.Class == UnknownResult || answer.Class == OddRefusal) && t.answerLost(t.conn.Environment):
		wait = max(wait, time.Minute)
	}
	if wait > 0 {
		t.pause(ctx, t.conn.Environment, wait, answer.Detail)
	}
}

// answerUnknown: nobody knows whether the token is spent. It is looked into
// after the quiet period, or when the server wants to be asked again.
func (t *turn) answerUnknown(ctx context.Context, answer Answer, cause error) (*ConnectionReport, error) {
	over := t.rec.Attempt.Until.Add(t.settings.Quiet)
	if t.rec.Attempt.Presentations == 1 {
		t.notify(ctx, NoticeUnknown, t.conn, "The answer to a refresh was lost (%s). It is looked into by itself after %s; nothing needs to be done now.",
			answer.Detail, over.UTC().Format(time.RFC3339))
	}
	if asked := t.clock().Add(answer.Wait); asked.After(over) {
		over = asked
		if _, err := t.failure(ctx, Look, ResponseKey{}, classIssuer, answer.Wait, cause); err != nil && !errors.Is(err, ErrConflict) {
			return nil, err
		}
	}
	t.detail = answer.Detail
	r := t.report(Unknown, over, nil)
	return &r, nil
}

// captured saves the answer before anybody looks at it.
func (t *turn) captured(ctx context.Context, p *presentation, body token.Secret) (*ConnectionReport, error) {
	m := t.response(p, body)
	others := []func(context.Context, TokenResponse) error{t.escrow}
	if implausiblyLarge(body) {
		others = nil
	}
	if err := t.save(ctx, m, others...); err != nil {
		t.notify(ctx, NoticeUnsaved, t.conn, "A new pair of %s could be saved in neither store. If the next runs do not find the old one still valid, somebody must consent again.", t.conn)
		t.detail = err.Error()
		r := t.report(Unknown, t.rec.Attempt.Until.Add(t.settings.Quiet), nil)
		return &r, nil
	}
	t.bodies[m.Key] = body
	t.looked = false
	return nil, nil
}

// response gives an answer the form in which it is saved.
func (t *turn) response(p *presentation, body token.Secret) TokenResponse {
	m := TokenResponse{Connection: t.conn, Key: ResponseKey{t.rec.Epoch, t.rec.Generation + 1, t.presented}, Parent: t.rec.Attempt.Fingerprint,
		Source: t.rec.renewal(), SavedAt: t.clock().UTC().Truncate(time.Millisecond), State: Saved, APIURL: p.app.APIURL, Stack: t.settings.Stack}
	if t.rec.Pin != nil {
		m.Company = t.rec.Pin.Company
	}
	m.Sealed = p.key.seal(body, t.conn, m.Key)
	return m
}

// attemptEnded: the refresh token was not spent. The attempt is over, and the
// row rests.
func (t *turn) attemptEnded(ctx context.Context, class string, wait time.Duration, cause error) (*ConnectionReport, error) {
	mine := t.presented
	t.presented = ""
	for range maxSteps {
		t.rec.Attempt = t.rec.Attempt.withoutLast(t.settings.Quiet, t.clock())
		end, err := t.failure(ctx, Redeem, ResponseKey{}, class, wait, cause, Event{Kind: "ended", Attempt: mine, Detail: cause.Error()})
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

// clientFault: the server does not accept the app credentials. They may have
// been replaced since they were read.
func (t *turn) clientFault(ctx context.Context, app Application, answer Answer) (*ConnectionReport, error) {
	if t.credentialsChanged(ctx, app) {
		t.rec.Attempt = t.rec.Attempt.withoutLast(t.settings.Quiet, t.clock())
		ended := Event{Kind: "ended", Attempt: t.presented, Detail: "the app credentials were replaced meanwhile"}
		t.presented = ""
		return nil, t.write(ctx, Change{History: []Event{ended}})
	}
	why := fmt.Sprintf("the server does not accept the app credentials of %s (%s): run `tokenturn app set %s`", t.conn.Environment, answer.Detail, t.conn.Environment)
	t.stopApp(t.conn.Environment, why)
	return t.attemptEnded(ctx, classConfig, 0, &appError{app, why})
}
