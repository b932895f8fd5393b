package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// errNoLiveToken: a consent has no access token to check its owner with. It has
// expired, or the answer had none. That proves nothing about the consent, because its
// refresh token gives another one.
var errNoLiveToken = errors.New("there is no live access token to check who gave the consent")

// decideOn judges m by its body and writes the decision: m becomes current, or is
// quarantined or rejected. If that recovers the connection, people are notified first.
// It returns the row as it is then. After any other error than an identityError,
// nothing was decided.
func (e *engine) decideOn(ctx context.Context, rec Record, responses []TokenResponse, m TokenResponse,
	body token.Secret, recovers bool) (Record, []TokenResponse, error) {
	verdict := e.judge(m.Source, body)
	verdict.Pair.Lifetime = m.lifetime(verdict.Pair)
	switch {
	case m.Source == FromImport && !verdict.Pair.RefreshToken.IsZero():
		verdict.Pair.AccessToken = token.Secret{}
	case implausiblyLarge(body):
		return e.mark(ctx, rec, responses, m, Quarantined, "the answer is implausibly large")
	case verdict.Verdict == Contradictory || verdict.Verdict == Unreadable:
		return e.mark(ctx, rec, responses, m, Quarantined, verdict.Reason)
	case verdict.Verdict == Empty:
		return e.mark(ctx, rec, responses, m, Rejected, verdict.Reason)
	}
	pin, err := e.checkIdentity(ctx, rec, m, verdict.Pair)
	switch wrong, isWrong := errors.AsType[*identityError](err); {
	case isWrong:
		next, left, err := e.mark(ctx, rec, responses, m, Rejected, wrong.Error())
		if err != nil {
			return rec, responses, err
		}
		return next, left, wrong
	case err != nil:
		return rec, responses, err
	}
	next, err := e.succeed(rec, m, verdict.Pair, pin)
	if err != nil {
		return rec, responses, err
	}
	if verdict.Verdict == Salvaged && m.Source != FromImport { // an import is a refresh token and nothing else
		e.notify(ctx, NoticeSalvaged, m.Connection, "The token endpoint's answer for %s was malformed (%s). "+
			"tokenturn found one refresh token in it and continues with that token.", m.Connection, verdict.Reason)
	}
	if rec.ServiceAccount == next.ServiceAccount { // tokens of the two kinds may live differently long
		e.notifyOfLifetime(ctx, rec.Current, next.Current, m.Connection.Environment)
	}
	e.notifyOfClock(ctx, rec, m, verdict.Pair)
	change := Change{History: append(rec.endedBy(m.Key.Attempt), Event{Kind: "decided", Attempt: m.Key.Attempt,
		Detail: string(m.Source), Spent: m.Parent, ExpiresAt: next.Current.ExpiresAt})}
	for _, old := range responses { // a consent that had to be refreshed before it could be checked: of the same grant
		if m.Consent != "" && old.Key.Epoch == m.Key.Epoch && old.consent() == m.Consent && old.Key != m.Key {
			change.Bury = append(change.Bury, old.Key)
		}
	}
	if rec.Ancestor != nil && m.Key.Epoch == rec.Epoch { // what succeeded it was never published
		change.Bury = append(change.Bury, *rec.Ancestor)
	}
	if recovers {
		e.notify(ctx, NoticeRecovered, m.Connection, "%s works again: tokenturn found a token pair that an earlier "+
			"run had saved, or the server accepted the refresh token after all.", m.Connection)
	}
	return e.write(ctx, next, responses, change)
}

// notifyOfLifetime notifies people if the lifetime of access tokens has changed.
func (e *engine) notifyOfLifetime(ctx context.Context, old, current *Current, environment string) {
	if was, is := old.lifetime(), current.lifetime(); was > 0 && is > 0 && (is-was).Abs() > max(was/20, 10*time.Second) {
		e.notifyDaily(ctx, NoticeLifetimeChanged, environment, is.Round(time.Minute).String(),
			"Access tokens of %s now live %v. They lived %v before. tokenturn adjusts all due times; no action is needed.",
			environment, is.Round(time.Second), was.Round(time.Second))
	}
}

// notifyOfClock notifies people of a wrong clock. A process that was frozen between
// the answer and saving it was only slow.
func (e *engine) notifyOfClock(ctx context.Context, rec Record, m TokenResponse, pair token.Pair) {
	skew := pair.ClockSkew(m.SavedAt)
	if a := rec.Attempt; a != nil && a.ID == m.Key.Attempt && skew < 0 {
		skew = min(0, pair.ClockSkew(a.BegunAt))
	}
	if skew.Abs() > token.ClockTolerance {
		e.notifyDaily(ctx, NoticeClock, m.Connection.Environment, "", "The clock of the %s server and the clock of the "+
			"machine that ran tokenturn (or Lambda) differ by %v. tokenturn replaces tokens early until the clocks agree. "+
			"If the machine is yours, check its time synchronization.",
			m.Connection.Environment, skew.Abs().Round(time.Second))
	}
}

// endedBy is the history of an attempt that ends because something other than its
// own answer was decided.
func (r Record) endedBy(attempt string) []Event {
	if r.Attempt == nil || r.Attempt.ID == attempt {
		return nil
	}
	return []Event{{Kind: "ended", Epoch: r.Epoch, Generation: r.Generation, Attempt: r.Attempt.ID,
		Detail: "superseded; its result is unknown"}}
}

// succeed returns the record with m as its current response.
func (e *engine) succeed(rec Record, m TokenResponse, pair token.Pair, pin Pin) (Record, error) {
	next := rec.clone()
	next.Current = &Current{Fingerprint: lineage(pair), Response: m.Key, SavedAt: m.SavedAt, IssuedAt: m.SavedAt}
	if !pair.AccessToken.IsZero() {
		value, err := project(m, pair).Encode()
		if err != nil {
			return rec, err
		}
		next.Current.VersionID = token.VersionID(value)
		next.Current.ExpiresAt = pair.ExpiresAt(m.SavedAt)
		next.Current.Lifetime = Seconds(pair.Lifetime / time.Second)
		next.Current.IssuedAt = pair.EarliestExpiry(m.SavedAt).Add(-pair.Lifetime)
	}
	if m.Source == FromImport {
		next.Imported = append(next.Imported, next.Current.Fingerprint)
	}
	next.Ancestor = nil
	if m.Key.Epoch == rec.Epoch && rec.Current != nil {
		next.Ancestor = &rec.Current.Response
		next.Spent = append(next.Spent[max(0, len(next.Spent)-3):], rec.Current.Fingerprint)
	}
	if m.Key.Epoch != rec.Epoch {
		next.Spent = nil // a late answer of the old epoch is an orphan, made due by the process that saves it
		next.SearchAt = time.Time{}
		if rec.Status != Pending {
			next.endEpoch(e.clock(), e.settings.Quiet)
		}
		next.ConsentAttempt = nil // within one epoch it stays: its answer may still arrive, or be in escrow
	}
	next.Epoch, next.Generation, next.Status = m.Key.Epoch, m.Key.Generation, Active
	next.Attempt, next.Refusal, next.Pin, next.RotatedAt = nil, nil, &pin, m.SavedAt
	next.ServiceAccount, next.NoticePending = m.Source == FromClient, false
	next.forget(func(f Failure) bool { return f.Response == (ResponseKey{}) && f.Step != Revoke || f.Response == m.Key })
	return next, nil
}

// endEpoch clears the attempts of an epoch that is over. Their answers may still be on
// the way, so they are searched for once they can no longer arrive.
func (r *Record) endEpoch(until time.Time, quiet time.Duration) {
	if a := r.Attempt; a != nil && a.Until.After(until) {
		until = a.Until
	}
	if a := r.ConsentAttempt; a != nil && a.Until.After(until) {
		until = a.Until
	}
	r.SearchAt = until.Add(quiet + 15*time.Minute).UTC()
	r.Attempt, r.ConsentAttempt = nil, nil
}

// project returns what readers see of a response: a function of the response alone.
func project(m TokenResponse, pair token.Pair) token.Document {
	return token.Document{Connection: m.Connection, Environment: m.Connection.Environment, APIURL: m.APIURL,
		CompanyID: m.Company, AccessToken: pair.AccessToken, TokenType: pair.TokenType,
		CreatedAt: pair.IssuedAt(m.SavedAt).Truncate(time.Second), ExpiresAt: pair.ExpiresAt(m.SavedAt),
		Epoch: m.Key.Epoch, Generation: m.Key.Generation, Parent: m.Parent, Stack: m.Stack, SealedAnswer: m.Sealed,
		Attempt: m.Key.Attempt, Source: string(m.Source), SavedAt: m.SavedAt}
}

// lifetime of the access token: what the answer says or, if it says nothing, the
// lifetime of the previous pair.
func (m TokenResponse) lifetime(pair token.Pair) time.Duration {
	if pair.Lifetime > 0 || pair.AccessToken.IsZero() {
		return pair.Lifetime
	}
	return m.Before.Duration()
}

// lineage is the fingerprint by which a successor names the pair it came from.
func lineage(p token.Pair) token.Fingerprint {
	if p.RefreshToken.IsZero() {
		return p.AccessToken.Fingerprint()
	}
	return p.RefreshToken.Fingerprint()
}

// judge is the issuer's judgement of an answer, by its source. A service account gets
// an access token only (RFC 6749 section 4.4.3). From any other source, an access token
// alone is no usable answer.
func (e *engine) judge(source Source, body token.Secret) Judgement {
	j := e.issuer.Parse(body)
	switch {
	case source == FromClient && (j.Verdict == AccessOnly || j.Verdict == Sound):
		j.Verdict, j.Pair.RefreshToken = Sound, token.Secret{}
	case source == FromClient || j.Verdict == AccessOnly:
		j = Judgement{Verdict: Empty, Reason: j.Reason}
	}
	return j
}

// mark notifies people that m is quarantined or rejected, and then writes it. The
// order matters, because a written mark sends no notice later: a crash in between
// costs a second notice; in the other order it would cost the only one. A response
// that was already quarantined only gets a new time to be judged again.
func (e *engine) mark(ctx context.Context, rec Record, responses []TokenResponse, m TokenResponse, state ResponseState,
	reason string, added ...TokenResponse) (Record, []TokenResponse, error) {
	rec = rec.clone()
	change := Change{Copy: added}
	if state == Rejected {
		rec.forget(func(f Failure) bool { return f.Step == Decide && f.Response == m.Key })
		if a := rec.ConsentAttempt; a != nil && a.Consent == m.consent() { // otherwise another consent would wait for it
			rec.ConsentAttempt = nil
		}
	} else {
		rec.judgeAgain(m.Key, e.settings.Quiet, e.clock())
	}
	if m.State != state {
		// Another process may just have decided it and then has also notified people.
		if now, others, err := e.load(ctx, m.Connection); err != nil {
			return rec, responses, err
		} else if now.Revision != rec.Revision || !has(others, m.Key) {
			return rec, responses, ErrConflict
		}
		m.State, m.Reason = state, reason
		change.Mark = []TokenResponse{m}
		for _, old := range responses { // also the consent that it was refreshed from
			if state == Rejected && m.Consent != "" && old.Key.Epoch == m.Key.Epoch && old.consent() == m.Consent &&
				old.Key != m.Key {
				old.State, old.Reason = state, reason
				change.Mark = append(change.Mark, old)
			}
		}
		change.History = []Event{{Kind: string(state), Epoch: m.Key.Epoch, Generation: m.Key.Generation,
			Attempt: m.Key.Attempt, Detail: reason}}
		e.notifyOfMark(ctx, m)
	}
	return e.write(ctx, rec, responses, change)
}

// judgeAgain sets when a quarantined response is judged again: after the quiet period,
// then daily. A newer program may be able to decide it.
func (r *Record) judgeAgain(key ResponseKey, quiet time.Duration, now time.Time) {
	f := Failure{Step: Decide, Response: key, Class: classQuarantine, Count: 1, NextAt: now.Add(quiet).UTC()}
	if old := r.failure(Decide, key); old != nil && old.Class == classQuarantine {
		f.Count, f.NextAt = old.Count+1, now.Add(daily).UTC()
	}
	r.setFailure(f)
}

func (e *engine) notifyOfMark(ctx context.Context, m TokenResponse) {
	switch {
	case m.State == Quarantined && m.Source == FromCode:
		e.notify(ctx, NoticeQuarantined, m.Connection, "The answer to a new consent for %[2]s cannot be used (%[1]s). "+
			"Invite the person again: run `tokenturn connection invite %[2]s`.", m.Reason, m.Connection)
	case m.State == Quarantined:
		e.notify(ctx, NoticeQuarantined, m.Connection, "The token endpoint's answer for %[2]s cannot be used (%[1]s). "+
			"tokenturn presents no refresh token of this connection until you run `tokenturn connection release %[2]s` or "+
			"`tokenturn connection discard %[2]s`, or the person consents again.", m.Reason, m.Connection)
	case m.Source == FromCode || m.Consent != "":
		e.notify(ctx, NoticeRejected, m.Connection, "tokenturn rejected a new token pair of %s: %s. The current pair, if "+
			"any, stays in use. To try again, run `tokenturn connection invite %[1]s`.", m.Connection, m.Reason)
	default:
		e.notify(ctx, NoticeRejected, m.Connection, "tokenturn rejected a new token pair of %s: %s.", m.Connection,
			m.Reason)
	}
}

// identityError says that a consent is not the one that was requested.
type identityError struct{ what string }

func (e *identityError) Error() string { return e.what }

// checkIdentity returns the pin that the record has once m is current. A consent is
// checked against what was requested and what is pinned: identityError if it does not
// match, errNoLiveToken if it has waited too long to be checked. After an import, and
// as long as the pin lacks the user, the pin is completed if the issuer answers.
func (e *engine) checkIdentity(ctx context.Context, rec Record, m TokenResponse, pair token.Pair) (Pin, error) {
	pin := Pin{Environment: m.Connection.Environment, Company: m.Company}
	if rec.Pin != nil {
		pin = *rec.Pin
	}
	if m.Source == FromClient && m.Key.Epoch != rec.Epoch {
		return e.checkAccount(ctx, rec, m, pair)
	}
	consent := m.Source == FromCode || m.Consent != ""
	mayHaveExpired := pair.Lifetime == 0 || !e.clock().Before(pair.EarliestExpiry(m.SavedAt)) ||
		e.clock().Before(m.SavedAt) // the clock here is behind
	switch {
	case consent && pair.AccessToken.IsZero() && !pair.RefreshToken.IsZero():
		return pin, errNoLiveToken
	case consent && pair.AccessToken.IsZero():
		return pin, &identityError{"the answer has no access token, so nobody can check who gave the consent"}
	case consent && pair.Lifetime > 0 && !e.clock().Before(pair.ExpiresAt(m.SavedAt)):
		return pin, errNoLiveToken
	case m.Source == FromClient || !consent && m.Source == FromRefresh && pin.ResourceOwner != "" ||
		pair.AccessToken.IsZero():
		return pin, nil
	}
	app, err := e.readApplication(ctx, m.Connection.Environment)
	if err != nil {
		return pin, fmt.Errorf("checking who gave the consent for %s: %w", m.Connection, err)
	}
	id, err := e.identify(ctx, app, pair.AccessToken, m.Company)
	switch {
	case !consent: // the refresh itself proved the pair; the pin can wait
		if err == nil { // the app may have been replaced since the pair was issued
			pin.Client = token.NewSecret(id.ClientID).Fingerprint()
			pin.ResourceOwner, pin.Login = id.ResourceOwner, id.Login
		}
		return pin, nil
	case errors.Is(err, ErrTokenRefused) && mayHaveExpired:
		return pin, errNoLiveToken
	case errors.Is(err, ErrTokenRefused):
		return pin, &identityError{"the server refused the new access token when tokenturn asked for its owner"}
	case err != nil:
		return pin, fmt.Errorf("checking who gave the consent for %s: %w", m.Connection, err)
	}
	if err := compare(app, m, rec.Pin, id); err != nil {
		return pin, err
	}
	pin.Client = token.NewSecret(id.ClientID).Fingerprint()
	if name := companyName(m); name != "" || pin.Company != m.Company {
		pin.CompanyName = name
	}
	pin.ResourceOwner, pin.Login, pin.Company = id.ResourceOwner, id.Login, m.Company
	return pin, nil
}

// checkAccount returns the pin of a connection that becomes a service account. The app must
// have access to the company, so that readers do not get a token that cannot replace theirs.
// There is no refresh token, so a token that has expired before it could be checked is of no
// use.
func (e *engine) checkAccount(ctx context.Context, rec Record, m TokenResponse, pair token.Pair) (Pin, error) {
	pin := Pin{Environment: m.Connection.Environment, Company: m.Company}
	expired := &identityError{"the service account's token expired before tokenturn could check the app's access to " +
		"company " + m.Company + "; nothing has changed: run `tokenturn connection convert " + m.Connection.String() +
		" --to service-account` again"}
	if before := rec.Pin; before != nil && before.Company != "" && before.Company != m.Company {
		return pin, &identityError{"the connection belongs to company " + before.Company + "; choose another name for a " +
			"service account in company " + m.Company}
	} else if before != nil {
		pin.CompanyName = before.CompanyName
	}
	if !e.clock().Before(pair.ExpiresAt(m.SavedAt)) {
		return pin, expired
	}
	app, err := e.readApplication(ctx, m.Connection.Environment)
	if err != nil {
		return pin, fmt.Errorf("checking the service account for %s: %w", m.Connection, err)
	}
	id, err := e.identify(ctx, app, pair.AccessToken, m.Company)
	switch {
	case errors.Is(err, ErrTokenRefused) && !e.clock().Before(pair.EarliestExpiry(m.SavedAt)):
		return pin, expired
	case errors.Is(err, ErrTokenRefused):
		return pin, &identityError{"the server does not accept the service account's token"}
	case errors.Is(err, ErrAppNotInstalled), err == nil && id.Company != m.Company:
		return pin, &identityError{"the app's service account has no access to company " + m.Company + ": an " +
			"administrator of the company must install the app and choose the projects of its service account"}
	case err != nil:
		return pin, fmt.Errorf("checking the service account for %s: %w", m.Connection, err)
	}
	return pin, nil
}

// companyName is what the operator called the company that the consent was requested for.
func companyName(m TokenResponse) string {
	if m.Expect == nil || m.Company == "" {
		return ""
	}
	return m.Expect.CompanyName
}

func compare(app Application, m TokenResponse, pin *Pin, id Identity) error {
	expect := Identity{}
	if m.Expect != nil {
		expect = *m.Expect
	}
	switch {
	case id.ClientID != app.ClientID:
		return &identityError{"the consent is for a client id other than the app's"}
	case expect.ResourceOwner != "" && expect.ResourceOwner != id.ResourceOwner:
		return &identityError{"the consent is from a user other than the invited one"}
	case expect.Login != "" && !strings.EqualFold(expect.Login, id.Login): // people write e-mail addresses either way
		return &identityError{"the consent is from a login other than the invited one"}
	case m.Company != "" && m.Company != id.Company:
		return &identityError{"the user has no access to company " + m.Company + ", or the app is not installed there"}
	case pin != nil && pin.Company != "" && pin.Company != m.Company && !expect.Repin:
		return &identityError{"the connection belongs to company " + pin.Company + "; invite with --repin to move it"}
	case pin != nil && pin.ResourceOwner != "" && pin.ResourceOwner != id.ResourceOwner && !expect.Repin:
		return &identityError{"the connection belongs to another user; invite with --repin to hand it over"}
	}
	return nil
}

// decide judges a saved response. A crash before its write leaves the response as it
// is, and the next run decides it. After its write, the pair is current and only has to
// be published.
func (t *reconciliation) decide(ctx context.Context, m TokenResponse) (*ConnectionReport, error) {
	body, err := t.open(ctx, m)
	if err != nil {
		return t.openFailed(ctx, Decide, m.Key, err)
	}
	a := t.rec.Attempt
	abandoned := t.rec.Status == NeedsConsent || m.State == Quarantined || a != nil && a.ID != t.presented &&
		!t.now.Before(t.engine.settings.attemptEnd(*a, t.now))
	recovers := abandoned && m.Source == FromRefresh && m.Consent == ""
	rec, responses, err := t.engine.decideOn(ctx, t.rec, t.responses, m, body, recovers)
	switch _, wrong := errors.AsType[*identityError](err); {
	case errors.Is(err, errNoLiveToken):
		return t.refreshConsent(ctx, m, t.engine.judge(m.Source, body).Pair.RefreshToken)
	case wrong:
		t.set(rec, responses)
		return nil, nil // rejected; the next step revokes it
	case errors.Is(err, ErrConflict):
		return nil, err
	case errors.Is(err, ErrAppNotInstalled):
		return t.notInstalled(ctx, m, err)
	case err != nil:
		return t.failure(ctx, Decide, m.Key, classIssuer, waitOf(err), err)
	}
	t.set(rec, responses)
	if rec.Current == nil || rec.Current.Response != m.Key { // quarantined or rejected
		t.failed[act{Decide, m.Key}] = true
		return nil, nil
	}
	if recovers {
		t.did = Recovered
	}
	return nil, nil
}

// waitOf is how long the server asked tokenturn to wait; 0: it did not ask.
func waitOf(err error) time.Duration {
	if asked, ok := errors.AsType[*WaitError](err); ok {
		return min(asked.Wait, longestWait)
	}
	return 0
}

// notInstalled: the consent is valid but cannot be used until an administrator
// installs the app in the company. It waits.
func (t *reconciliation) notInstalled(ctx context.Context, m TokenResponse, cause error) (*ConnectionReport, error) {
	if t.rec.failure(Decide, m.Key) == nil {
		t.engine.notify(ctx, NoticeAppNotInstalled, t.conn, "The consent for %s is saved, but the app is not installed in "+
			"company %s. An administrator of that company must install it. tokenturn then continues automatically.", t.conn,
			m.Company)
	}
	return t.failure(ctx, Decide, m.Key, classIssuer, 0, cause)
}

// refreshConsent presents the refresh token of a consent that has waited longer than
// its access token lives, so that its owner can still be checked. It does so under an
// attempt of its own. The new response is decided like the consent itself.
func (t *reconciliation) refreshConsent(ctx context.Context, m TokenResponse, refresh token.Secret) (*ConnectionReport,
	error) {
	if fingerprint := refresh.Fingerprint(); t.rec.Current != nil && (fingerprint == t.rec.Current.Fingerprint ||
		slices.Contains(t.rec.Spent, fingerprint)) {
		return t.copyOfOurs(ctx, m) // that token is presented for the current pair only
	}
	if f := t.rec.failure(Decide, m.Key); m.Consent != "" && f == nil { // the server gave no access token, twice
		return t.failure(ctx, Decide, m.Key, classIssuer, 15*time.Minute, errNoLiveToken)
	}
	if a := t.rec.ConsentAttempt; a != nil && a.Consent != m.consent() {
		return t.failure(ctx, Decide, m.Key, classIssuer, a.Until.Add(t.engine.settings.Quiet).Sub(t.now),
			errors.New("another consent is being refreshed"))
	} else if a != nil && t.refreshed == "" { // its answer may be in escrow
		if found, err := t.escrowOf(ctx, m); err != nil {
			return t.failure(ctx, Decide, m.Key, classStore, 0, err)
		} else if len(found) > 0 {
			return nil, t.write(ctx, Change{Copy: found})
		}
	}
	if t.publishOnly || t.refreshed != "" {
		t.failed[act{Decide, m.Key}] = true
		return nil, nil
	}
	p, end, err := t.readyToPresent(ctx, act{Decide, m.Key})
	if end != nil && t.rec.unpublished() { // which needs no server
		t.failed[act{Decide, m.Key}] = true
		return nil, err
	}
	if p == nil {
		return end, err
	}
	p.grant.RefreshToken = refresh
	now := t.engine.clock().UTC()
	a := ConsentAttempt{Attempt: Attempt{ID: newID(), Fingerprint: refresh.Fingerprint(), BegunAt: now,
		Until: now.Add(t.engine.settings.Lease), Presentations: 1}, Consent: m.consent()}
	t.rec.ConsentAttempt = &a
	if err := t.write(ctx, Change{Bury: t.before(m)}); err != nil {
		return nil, err
	}
	t.refreshed = a.ID
	answer, posted := t.post(ctx, p, a.Until)
	if !posted {
		t.rec.ConsentAttempt = nil
		return t.failure(ctx, Decide, m.Key, classNotSent, 0, errTooLateToPresent)
	}
	if answer.Class == Captured {
		next := t.response(p, answer.Body, ResponseKey{m.Key.Epoch, m.Key.Generation + 1, a.ID}, a.Fingerprint, FromRefresh)
		next.Company, next.Expect, next.Consent = m.Company, m.Expect, m.consent()
		return t.captured(ctx, p, next, answer.Body)
	}
	return t.consentNotRefreshed(ctx, m, p.app, answer)
}

// before are the responses of the same consent that m succeeds.
func (t *reconciliation) before(m TokenResponse) (keys []ResponseKey) {
	for _, old := range t.responses {
		if old.Key.Epoch == m.Key.Epoch && old.consent() == m.consent() && old.Key.Generation < m.Key.Generation {
			keys = append(keys, old.Key)
		}
	}
	return keys
}

// copyOfOurs: the server has answered a consent with a pair that the connection
// already has or had. The connection goes on with its own.
func (t *reconciliation) copyOfOurs(ctx context.Context, m TokenResponse) (*ConnectionReport, error) {
	rec, responses, err := t.engine.mark(ctx, t.rec, t.responses, m, Rejected,
		"it is the token pair that the connection already has")
	if err == nil {
		t.set(rec, responses)
	}
	return nil, err
}

// consentNotRefreshed acts on every answer except a captured one.
func (t *reconciliation) consentNotRefreshed(ctx context.Context, m TokenResponse, app Application,
	answer Answer) (*ConnectionReport, error) {
	t.updateBreaker(ctx, answer)
	cause := fmt.Errorf("refreshing the waiting consent of %s: %s", t.conn, answer.Detail)
	switch answer.Class {
	case UnknownResult, OddRefusal: // the attempt stays; once it is over, its answer is searched for
		t.engine.notify(ctx, NoticeUnknown, t.conn, "The answer to the refresh of a saved consent of %s was lost (%s). "+
			"tokenturn checks again automatically; no action is needed.", t.conn, answer.Detail)
		return nil, nil
	case Refused:
		t.rec.ConsentAttempt = nil
		rec, responses, err := t.engine.mark(ctx, t.rec, t.responses, m, Rejected,
			"the server refused the refresh token of the consent")
		if err == nil {
			t.set(rec, responses)
		}
		return nil, err
	case ClientFault:
		t.rec.ConsentAttempt = nil
		if t.run.otherCredentials(ctx, app) {
			return nil, t.write(ctx, Change{}) // by the next run, with the new ones
		}
		return t.failure(ctx, Decide, m.Key, classConfig, 0, t.appRefused(app, answer))
	case GrantFault, RequestFault:
		t.rec.ConsentAttempt = nil
		return t.failure(ctx, Decide, m.Key, classConfig, 0, cause)
	}
	t.rec.ConsentAttempt = nil
	return t.failure(ctx, Decide, m.Key, classIssuer, answer.Wait, cause)
}

// escrowOf reads the escrow of a consent that was refreshed.
func (t *reconciliation) escrowOf(ctx context.Context, m TokenResponse) ([]TokenResponse, error) {
	stored, unread, err := t.storedResponses(ctx, escrowOnly)
	if err == nil {
		err = unread
	}
	var found []TokenResponse
	for _, s := range stored {
		if s.Key.Epoch == m.Key.Epoch && s.Consent == m.consent() && !has(t.responses, s.Key) {
			found = append(found, s)
		}
	}
	return found, err
}
