package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// ErrHasConsent: the connection has a person's consent, which a service account does not
// replace.
var ErrHasConsent = errors.New("the connection is a person's consent")

// ServiceAccount makes c a service account of the app in a company and gets its first
// token. After that, c is kept fresh like any other connection. c must be registered. It
// must not have a consent that was not disconnected. If it already is this service
// account, its token is renewed when due, and at once if the last attempt failed.
// ErrNotRegistered, ErrHasConsent.
func (r *Rotator) ServiceAccount(ctx context.Context, c token.Connection, company string) (Report, error) {
	started := time.Now()
	rec, err := r.engine.update(ctx, c, func(rec *Record, _ []TokenResponse) (Change, bool, error) {
		switch {
		case rec.Revision == "":
			return Change{}, false, fmt.Errorf("%s: %w", c, ErrNotRegistered)
		case rec.Stack != r.engine.settings.Stack:
			return Change{}, false, &otherStackError{c, r.engine.settings.Stack, rec.Stack}
		case rec.ServiceAccount && rec.Status == Active && rec.Pin.Company == company:
			return Change{}, false, nil
		case rec.ServiceAccount && rec.Status == Active:
			return Change{}, false, fmt.Errorf("%s is the service account in company %s: disconnect it first, "+
				"or choose another name", c, rec.Pin.Company)
		case rec.Status == Active || rec.Status == NeedsConsent:
			return Change{}, false, fmt.Errorf("%s: %w: to replace it, run `tokenturn connection convert "+
				"%[1]s --to service-account`, or choose another name", c, ErrHasConsent)
		}
		now := r.engine.clock().UTC()
		rec.Epoch, rec.Generation, rec.Status, rec.ServiceAccount = rec.Epoch+1, 0, Active, true
		rec.Current = &Current{Response: ResponseKey{Epoch: rec.Epoch}, SavedAt: now, IssuedAt: now}
		rec.Pin = &Pin{Environment: c.Environment, Company: company}
		return Change{History: []Event{{Kind: "decided", Epoch: rec.Epoch, Detail: "service account in company " + company}}},
			true, nil
	})
	if err != nil {
		return Report{}, err
	}
	s := situation{force: rec.failure(Redeem, ResponseKey{}) != nil} // a person asks, perhaps after fixing the cause
	return newReport("service-account", started, []ConnectionReport{r.newRun().connection(ctx, c, s, nil)}), nil
}

// ServiceAccount replaces a person's consent to c by a service account of the app in a
// company. Readers have a live token at every moment: the person's pair stays in use until
// the service account's token is saved, and the app's access to the company is checked; it
// is revoked once a Rotator has published the new token. A crash at any point leaves either
// of the two. c must be Active or NeedsConsent; see Rotator.ServiceAccount for the others.
// ErrNotRegistered, ErrNoApplication.
func (s *Consents) ServiceAccount(ctx context.Context, c token.Connection, company string) (ConsentResult, error) {
	standing, err := s.Standing(ctx, c)
	if err != nil {
		return "", err
	}
	switch {
	case standing.ServiceAccount && standing.Status == Active:
		return "", fmt.Errorf("%s is a service account already", c)
	case standing.Status != Active && standing.Status != NeedsConsent:
		return "", fmt.Errorf("%s is not connected, so there is nothing to replace", c)
	}
	x, err := s.Prepare(ctx, c, standing.Epoch)
	if err != nil {
		return "", err
	}
	answer := x.present(ctx, Grant{ClientCredentials: true})
	if answer.Class != Captured {
		return Unavailable, fmt.Errorf("getting a service account's token for %s: %s", c, answer.Detail)
	}
	if s.engine.judge(FromClient, answer.Body).Verdict != Sound || implausiblyLarge(answer.Body) {
		return Unavailable, fmt.Errorf("getting a service account's token for %s: %w", c, errNoAccountToken)
	}
	m := x.response(FromClient, answer.Body)
	m.Company = company
	if _, err := s.engine.save(ctx, m, nil); err != nil {
		return Unavailable, fmt.Errorf("saving the service account's token for %s: %w", c, err)
	}
	return s.adoptConsent(ctx, x, m, answer.Body)
}

var errNoAccountToken = errors.New("the answer has no access token with a lifetime")

// renewal is the source of a successor of the current pair.
func (r Record) renewal() Source {
	if r.ServiceAccount {
		return FromClient
	}
	return FromRefresh
}

// clientAnswered acts on the answer to a request for a service account's token. Asking
// again loses nothing. So no result is unknown, an answer that cannot be used or saved is
// not kept, and the attempt is over. If the server gives the app no such token, the
// connections of people in the same environment go on.
func (t *reconciliation) clientAnswered(ctx context.Context, p *presentation, answer Answer) (*ConnectionReport,
	error) {
	switch answer.Class {
	case Captured:
		defer t.updateBreaker(ctx, answer)
		return t.clientCaptured(ctx, p, answer.Body)
	case OddRefusal:
		t.updateBreaker(ctx, answer)
		if count, wait := t.countOdd(); count >= oddRefusals {
			return t.attemptEnded(ctx, classConfig, wait, t.notOAuth(answer))
		}
		return t.attemptEnded(ctx, classOdd, 0, fmt.Errorf("getting a token for %s: %s", t.conn, answer.Detail))
	case UnknownResult:
		t.updateBreaker(ctx, answer)
		return t.attemptEnded(ctx, classIssuer, answer.Wait, fmt.Errorf("getting a token for %s: %s", t.conn, answer.Detail))
	case Refused, GrantFault, RequestFault:
		return t.attemptEnded(ctx, classConfig, 0, fmt.Errorf("getting a token for %s: %s: the server gives this app no "+
			"service account token: add a service account to the app's version in the Developer Portal, or run "+
			"`tokenturn connection disconnect %[1]s`", t.conn, answer.Detail))
	}
	return t.answered(ctx, p, answer)
}

func (t *reconciliation) clientCaptured(ctx context.Context, p *presentation, body token.Secret) (*ConnectionReport,
	error) {
	if t.engine.judge(FromClient, body).Verdict != Sound || implausiblyLarge(body) {
		return t.attemptEnded(ctx, classIssuer, 0, fmt.Errorf("getting a token for %s: %w", t.conn, errNoAccountToken))
	}
	key := ResponseKey{t.rec.Epoch, t.rec.Generation + 1, t.presented}
	m := t.response(p, body, key, t.rec.Attempt.Fingerprint, FromClient)
	if err := within(ctx, storeTimeout, func(ctx context.Context) error {
		return t.engine.ledger.SaveResponse(ctx, m)
	}); err != nil {
		return t.attemptEnded(ctx, classStore, 0, fmt.Errorf("saving the answer for %s: %w", t.conn, err))
	}
	t.bodies[m.Key], t.loaded = body, false
	return nil, nil
}
