package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Bounds of single calls. A store that hangs gets seconds, not the deadline.
const (
	storeTimeout = 4 * time.Second
	// saveReserve is the time a run keeps for saving an answer after the POST.
	saveReserve = 15 * time.Second
	// saveAtMost bounds saving where the caller has no deadline.
	saveAtMost = 5 * time.Minute
	// maxEscrow is the largest answer that fits a secret store version beside its envelope.
	maxEscrow = 24 << 10
)

// implausiblyLarge answers can be saved in the ledger only, and never published.
func implausiblyLarge(body token.Secret) bool { return len(body.Reveal()) > maxEscrow }

// engine is what a Rotator and Consents have in common: saving an answer,
// judging it, and deciding on it.
type engine struct {
	ledger   Ledger
	apps     Applications
	issuer   Issuer
	notifier Notifier
	settings Settings
	log      *slog.Logger
	clock    func() time.Time
	told     *told
}

// notify tells people of c. What cannot be delivered is in the log only.
func (k *engine) notify(ctx context.Context, kind string, c token.Connection, format string, args ...any) {
	_ = k.deliver(ctx, Notice{Kind: kind, Connection: c, Environment: c.Environment, Summary: fmt.Sprintf(format, args...)})
}

// deliver logs a notice and has people told. The error is logged, too.
func (k *engine) deliver(ctx context.Context, n Notice) error {
	n.At = k.clock().UTC()
	about := n.Connection.String()
	if n.Connection.IsZero() {
		about = n.Environment
	}
	k.log.WarnContext(ctx, "notice", "kind", n.Kind, "about", about, "summary", n.Summary)
	var err error
	if k.notifier != nil {
		err = k.notifier.Notify(context.WithoutCancel(ctx), n)
	}
	if err != nil {
		k.log.ErrorContext(ctx, "notice not delivered", "kind", n.Kind, "about", about, "error", err)
	}
	return err
}

// save keeps m in the first store that acknowledges it: the ledger, and from
// the first failure on the ledger and the others in turn. Cancelling ctx does
// not stop it; its deadline does, for after it the process is gone anyway.
func (k *engine) save(ctx context.Context, m TokenResponse, others ...func(context.Context, TokenResponse) error) error {
	ctx, cancel := outlive(ctx, 3*time.Second) // to tell people, should it come to that
	defer cancel()
	stores := append([]func(context.Context, TokenResponse) error{k.ledger.SaveResponse}, others...)
	pause := 100 * time.Millisecond
	for {
		var errs []error
		for _, store := range stores {
			err := within(ctx, storeTimeout, func(ctx context.Context) error { return store(ctx, m) })
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("saving the answer for %s: %w", m.Connection, errors.Join(errs...))
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		}
	}
}

// outlive gives a context that cancelling ctx does not end, but its deadline
// does, reserve earlier: for after it the process is gone anyway.
func outlive(ctx context.Context, reserve time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(saveAtMost)
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(-reserve))
}

// loadRow reads the record and the live responses of c.
func (k *engine) loadRow(ctx context.Context, c token.Connection) (rec Record, responses []TokenResponse, err error) {
	err = within(ctx, storeTimeout, func(ctx context.Context) error {
		rec, responses, err = k.ledger.Load(ctx, c)
		return err
	})
	if err != nil {
		err = fmt.Errorf("loading %s: %w", c, err)
	}
	return rec, responses, err
}

// identify asks the issuer whose the access token is.
func (k *engine) identify(ctx context.Context, app Application, access token.Secret, company string) (id Identity, err error) {
	err = within(ctx, k.settings.RedeemTimeout, func(ctx context.Context) error {
		id, err = k.issuer.Identify(ctx, app, access, company)
		return err
	})
	return id, err
}

// endToken revokes the token at the issuer.
func (k *engine) endToken(ctx context.Context, app Application, t token.Secret) error {
	return within(ctx, k.settings.RedeemTimeout, func(ctx context.Context) error { return k.issuer.Revoke(ctx, app, t) })
}

// readApplication reads the app credentials of an environment.
func (k *engine) readApplication(ctx context.Context, environment string) (app Application, err error) {
	err = within(ctx, 2*storeTimeout, func(ctx context.Context) error {
		app, err = k.apps.Application(ctx, environment)
		return err
	})
	return app, err
}

// within calls f with a deadline of its own.
func within(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}

// write makes rec the new row, with due_at and held by the one rule for each.
func (k *engine) write(ctx context.Context, rec Record, responses []TokenResponse, change Change) error {
	now := k.clock()
	responses = applied(responses, change)
	rec.DueAt, rec.Held = k.settings.dueAt(rec, responses, now), held(rec, responses)
	for i := range change.History {
		h := &change.History[i]
		h.At = now.UTC()
		if h.Epoch == 0 && h.Generation == 0 {
			h.Epoch, h.Generation = rec.Epoch, rec.Generation
		}
	}
	change.Record = rec
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) error {
		_, err := k.ledger.Write(ctx, change)
		return err
	})
	if err != nil {
		return fmt.Errorf("writing the row of %s: %w", rec.Connection, err)
	}
	return nil
}

// applied gives the responses as they are after the change.
func applied(responses []TokenResponse, change Change) []TokenResponse {
	var out []TokenResponse
next:
	for _, m := range slices.Concat(responses, change.Copy) {
		for _, key := range change.Bury {
			if m.Key == key {
				continue next
			}
		}
		for _, marked := range change.Mark {
			if m.Key == marked.Key {
				m = marked
			}
		}
		out = append(out, m)
	}
	return out
}

// decideOn judges m by its body and writes what follows: m is the record's
// current pair, or is quarantined, or rejected. Any other error means that
// nothing was decided.
func (k *engine) decideOn(ctx context.Context, rec Record, responses []TokenResponse, m TokenResponse, body token.Secret) (Record, error) {
	verdict := k.judge(m.Source, body)
	switch {
	case m.Source == FromImport && !verdict.Pair.RefreshToken.IsZero():
		verdict.Pair.AccessToken = token.Secret{}
	case implausiblyLarge(body):
		return rec, k.mark(ctx, rec, responses, m, Quarantined, "the answer is implausibly large")
	case verdict.Verdict == Contradictory, verdict.Verdict == Unreadable:
		return rec, k.mark(ctx, rec, responses, m, Quarantined, verdict.Reason)
	case verdict.Verdict == Empty:
		return rec, k.mark(ctx, rec, responses, m, Rejected, verdict.Reason)
	case verdict.Verdict == Salvaged:
		k.notify(ctx, NoticeSalvaged, m.Connection, "The token endpoint's answer was odd (%s); a refresh token could be saved from it.", verdict.Reason)
	}
	pin, err := k.checkIdentity(ctx, rec, m, verdict.Pair)
	switch wrong, isWrong := errors.AsType[*identityError](err); {
	case isWrong:
		if err := k.mark(ctx, rec, responses, m, Rejected, wrong.Error()); err != nil {
			return rec, err
		}
		return rec, wrong
	case err != nil:
		return rec, err
	}
	next, err := k.succeed(rec, m, verdict.Pair, pin)
	if err != nil {
		return rec, err
	}
	if was, is := rec.Current.lifetime(), next.Current.lifetime(); was > 0 && is > 0 && (is-was).Abs() > max(was/20, 10*time.Second) {
		k.announce(ctx, NoticeLifetimeChanged, m.Connection.Environment, is.Round(time.Minute).String(),
			"Access tokens of %s now live %v; they lived %v before. All due times follow; nothing needs to be done.", m.Connection.Environment, is, was)
	}
	change := Change{History: append(rec.overtaken(m.Key.Attempt), Event{Kind: "decided", Attempt: m.Key.Attempt, Detail: string(m.Source), Spent: m.Parent})}
	if rec.Ancestor != nil && m.Key.Epoch == rec.Epoch { // what succeeded it was never published
		change.Bury = []ResponseKey{*rec.Ancestor}
	}
	return next, k.write(ctx, next, responses, change)
}

// overtaken is the history of an attempt that ends because something else than
// its own answer decides.
func (r Record) overtaken(by string) []Event {
	if r.Attempt == nil || r.Attempt.ID == by {
		return nil
	}
	return []Event{{Kind: "ended", Epoch: r.Epoch, Generation: r.Generation, Attempt: r.Attempt.ID, Detail: "overtaken; its end is unknown"}}
}

// succeed gives the record in which m is current.
func (k *engine) succeed(rec Record, m TokenResponse, pair token.Pair, pin Pin) (Record, error) {
	next := rec.clone()
	next.Current = &Current{Fingerprint: lineage(pair), Response: m.Key, SavedAt: m.SavedAt}
	if !pair.AccessToken.IsZero() {
		value, err := project(m, pair).Encode()
		if err != nil {
			return rec, err
		}
		next.Current.VersionID = token.VersionID(value)
		next.Current.ExpiresAt = pair.ExpiresAt(m.SavedAt)
	}
	if m.Source == FromImport {
		next.Imported = append(next.Imported, next.Current.Fingerprint)
	}
	next.Ancestor = nil
	if m.Key.Epoch == rec.Epoch && rec.Current != nil {
		next.Ancestor = &rec.Current.Response
	}
	if m.Key.Epoch != rec.Epoch && rec.Status != Pending {
		until := k.clock()
		if rec.Attempt != nil && rec.Attempt.Until.After(until) {
			until = rec.Attempt.Until
		}
		next.endEpoch(until, k.settings.Quiet)
	}
	if m.Key.Epoch != rec.Epoch { // what comes after it is an orphan, which whoever saves it makes due
		next.Expected = time.Time{}
	}
	next.Epoch, next.Generation, next.Status = m.Key.Epoch, m.Key.Generation, Active
	next.Attempt, next.Failure, next.Pin, next.RotatedAt = nil, nil, &pin, m.SavedAt
	next.ServiceAccount, next.Untold = m.Source == FromClient, false
	return next, nil
}

// endEpoch clears the attempt of an epoch that is over. What may still be on its
// way until then is searched for once it can no longer arrive.
func (r *Record) endEpoch(until time.Time, quiet time.Duration) {
	r.Overtaken = r.Overtaken || r.Attempt != nil
	r.Residue, r.Attempt = until.Add(quiet+15*time.Minute).UTC(), nil
}

// lifetime of the access token as it was when saved; 0: none, or not told.
func (c *Current) lifetime() time.Duration {
	if c == nil || c.VersionID == "" {
		return 0
	}
	return c.ExpiresAt.Sub(c.SavedAt)
}

// project is what consumers get to read of a response: a function of the response alone.
func project(m TokenResponse, pair token.Pair) token.Document {
	return token.Document{Connection: m.Connection, Environment: m.Connection.Environment, APIURL: m.APIURL,
		CompanyID: m.Company, AccessToken: pair.AccessToken, TokenType: pair.TokenType,
		CreatedAt: pair.IssuedAt(m.SavedAt).Truncate(time.Second), ExpiresAt: pair.ExpiresAt(m.SavedAt),
		Epoch: m.Key.Epoch, Generation: m.Key.Generation, Parent: m.Parent, Stack: m.Stack, SealedAnswer: m.Sealed,
		Attempt: m.Key.Attempt, Source: string(m.Source), SavedAt: m.SavedAt}
}

// mark tells people that m is quarantined or rejected, and writes it. In this
// order, because what is written is never told again: a crash in between costs
// a second notice, the other way round it would cost the only one.
func (k *engine) mark(ctx context.Context, rec Record, responses []TokenResponse, m TokenResponse, state ResponseState, reason string, added ...TokenResponse) error {
	m.State, m.Reason = state, reason
	switch {
	case state == Quarantined && m.Source == FromCode:
		k.notify(ctx, NoticeQuarantined, m.Connection, "The answer to a consent cannot be used as it is (%s). Invite the person again: `tokenturn connection invite %s`.", reason, m.Connection)
	case state == Quarantined:
		k.notify(ctx, NoticeQuarantined, m.Connection, "The token endpoint's answer cannot be used as it is (%s). Nothing is presented until you "+
			"run `tokenturn connection release %[2]s` or `tokenturn connection discard %[2]s`, or somebody consents again.", reason, m.Connection)
	default:
		k.notify(ctx, NoticeRejected, m.Connection, "A new pair was not accepted: %s.", reason)
	}
	return k.write(ctx, rec.clone(), responses, Change{Copy: added, Mark: []TokenResponse{m}, History: []Event{{Kind: string(state),
		Epoch: m.Key.Epoch, Generation: m.Key.Generation, Attempt: m.Key.Attempt, Detail: reason}}})
}

// identityError says that a consent is not the one that was asked for.
type identityError struct{ what string }

func (e *identityError) Error() string { return e.what }

// checkIdentity gives the pin that the record has once m is current. A consent
// is checked against what was asked for and what is pinned; identityError if
// it does not fit. After an import, and as long as the pin lacks the user, the
// pin is completed where the issuer answers.
func (k *engine) checkIdentity(ctx context.Context, rec Record, m TokenResponse, pair token.Pair) (Pin, error) {
	pin := Pin{Environment: m.Connection.Environment, Company: m.Company}
	if rec.Pin != nil {
		pin = *rec.Pin
	}
	if m.Source == FromCode && pair.AccessToken.IsZero() {
		return pin, &identityError{"the answer has no access token, so nobody can say whose consent it is"}
	}
	if m.Source == FromClient || m.Source == FromRefresh && pin.ResourceOwner != "" || pair.AccessToken.IsZero() {
		return pin, nil
	}
	app, err := k.readApplication(ctx, m.Connection.Environment)
	if err != nil {
		return pin, fmt.Errorf("checking whose consent %s has: %w", m.Connection, err)
	}
	pin.Client = token.NewSecret(app.ClientID).Fingerprint()
	id, err := k.identify(ctx, app, pair.AccessToken, m.Company)
	switch {
	case m.Source == FromRefresh: // the refresh itself proved the pair; the pin can wait
		if err == nil {
			pin.ResourceOwner, pin.Login = id.ResourceOwner, id.Login
		}
		return pin, nil
	case errors.Is(err, ErrTokenRefused):
		return pin, &identityError{"the server did not accept the new access token when asked whose it is"}
	case err != nil:
		return pin, fmt.Errorf("checking whose consent %s has: %w", m.Connection, err)
	}
	if err := compare(app, m, rec.Pin, id); err != nil {
		return pin, err
	}
	pin.ResourceOwner, pin.Login, pin.Company = id.ResourceOwner, id.Login, m.Company
	return pin, nil
}

func compare(app Application, m TokenResponse, pin *Pin, id Identity) error {
	expect := Identity{}
	if m.Expect != nil {
		expect = *m.Expect
	}
	switch {
	case id.ClientID != app.ClientID:
		return &identityError{"the consent is for another client id than the app's"}
	case expect.ResourceOwner != "" && expect.ResourceOwner != id.ResourceOwner:
		return &identityError{"the consent is of another user than the invited one"}
	case expect.Login != "" && !strings.EqualFold(expect.Login, id.Login): // people write e-mail addresses either way
		return &identityError{"the consent is of another login than the invited one"}
	case m.Company != "" && m.Company != id.Company:
		return &identityError{"the user has no access to company " + m.Company + ", or the app is not installed there"}
	case pin != nil && pin.Company != "" && pin.Company != m.Company && !expect.Repin:
		return &identityError{"the connection belongs to company " + pin.Company + "; invite with --repin to move it"}
	case pin != nil && pin.ResourceOwner != "" && pin.ResourceOwner != id.ResourceOwner && !expect.Repin:
		return &identityError{"the connection belongs to another user; invite with --repin to hand it over"}
	}
	return nil
}
