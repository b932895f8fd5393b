package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// ErrHasConsent: the connection is a person's consent, which a service account
// does not take over.
var ErrHasConsent = errors.New("the connection is a person's consent")

// ServiceAccount makes c one of the app itself in a company, and gets its first
// token. From then on it is kept fresh like any other. c must be registered and
// neither be nor have been connected, unless it was disconnected since or is this
// very service account. ErrNotRegistered, ErrHasConsent.
func (r *Rotator) ServiceAccount(ctx context.Context, c token.Connection, company string) (Report, error) {
	started := time.Now()
	for range maxSteps {
		rec, responses, err := r.loadRow(ctx, c)
		switch {
		case err != nil:
			return Report{}, err
		case rec.Revision == "":
			return Report{}, fmt.Errorf("%s: %w", c, ErrNotRegistered)
		case rec.Stack != r.settings.Stack:
			return Report{}, &otherStackError{c, r.settings.Stack, rec.Stack}
		case rec.ServiceAccount && rec.Status == Active && rec.Pin.Company == company:
			return newReport("service-account", started, []ConnectionReport{r.newRun().connection(ctx, c, situation{})}), nil
		case rec.ServiceAccount && rec.Status == Active:
			return Report{}, fmt.Errorf("%s is the service account in company %s: disconnect it first, or choose another name", c, rec.Pin.Company)
		case rec.Status == Active || rec.Status == NeedsConsent:
			return Report{}, fmt.Errorf("%s: %w: disconnect it first, or choose another name", c, ErrHasConsent)
		}
		next := rec.clone()
		next.Epoch, next.Generation, next.Status, next.ServiceAccount = rec.Epoch+1, 0, Active, true
		next.Current = &Current{Response: ResponseKey{Epoch: next.Epoch}, SavedAt: r.clock().UTC()}
		next.Pin = &Pin{Environment: c.Environment, Company: company}
		err = r.write(ctx, next, responses, Change{History: []Event{{Kind: "decided", Epoch: next.Epoch, Detail: "service account in company " + company}}})
		if err != nil && !errors.Is(err, ErrConflict) {
			return Report{}, err
		}
	}
	return Report{}, fmt.Errorf("the row of %s kept changing: %w", c, ErrConflict)
}

// renewal is what a successor of the current pair comes from.
func (r Record) renewal() Source {
	if r.ServiceAccount {
		return FromClient
	}
	return FromRefresh
}

// overSpendingNothing reports whether the attempt ran out and, being a service
// account's, leaves nothing to look for: asking again loses nothing.
func (r Record) overSpendingNothing(now time.Time) bool {
	return r.ServiceAccount && r.Attempt != nil && !now.Before(r.Attempt.Until)
}

// lineage is the fingerprint by which a successor names the pair it came from.
func lineage(p token.Pair) token.Fingerprint {
	if p.RefreshToken.IsZero() {
		return p.AccessToken.Fingerprint()
	}
	return p.RefreshToken.Fingerprint()
}

// judge is the issuer's judgement of an answer to what source says: an access token
// alone is all that a service account gets (RFC 6749 section 4.4.3), and no answer to
// anybody else.
func (k *engine) judge(source Source, body token.Secret) Judgement {
	j := k.issuer.Parse(body)
	switch {
	case source == FromClient && (j.Verdict == AccessOnly || j.Verdict == Sound):
		j.Verdict, j.Pair.RefreshToken = Sound, token.Secret{}
	case source == FromClient || j.Verdict == AccessOnly:
		j = Judgement{Verdict: Empty, Reason: j.Reason}
	}
	return j
}

// clientAnswered acts on what came of asking for a service account. Whatever
// became of it, asking again loses nothing: no end is unknown, what cannot be used or
// saved is not kept, and the attempt is over. That an app has none says nothing about
// what it has of people, who go on.
func (t *turn) clientAnswered(ctx context.Context, p *presentation, answer Answer) (*ConnectionReport, error) {
	switch answer.Class {
	case Captured:
		t.heed(ctx, answer)
		return t.clientCaptured(ctx, p, answer.Body)
	case UnknownResult, OddRefusal:
		t.heed(ctx, answer)
		return t.attemptEnded(ctx, classIssuer, answer.Wait, fmt.Errorf("getting a token for %s: %s", t.conn, answer.Detail))
	case Refused, GrantFault, RequestFault:
		return t.attemptEnded(ctx, classConfig, 0, fmt.Errorf("getting a token for %s: %s: the server gives this app none of its own; have a service account "+
			"added to its version in the Developer Portal, or run `tokenturn connection disconnect %[1]s`", t.conn, answer.Detail))
	}
	return t.answered(ctx, p, answer)
}

func (t *turn) clientCaptured(ctx context.Context, p *presentation, body token.Secret) (*ConnectionReport, error) {
	if t.judge(FromClient, body).Verdict != Sound || implausiblyLarge(body) {
		return t.attemptEnded(ctx, classIssuer, 0, fmt.Errorf("getting a token for %s: the answer has no access token with a lifetime", t.conn))
	}
	m := t.response(p, body)
	if err := within(ctx, storeTimeout, func(ctx context.Context) error { return t.ledger.SaveResponse(ctx, m) }); err != nil {
		return t.attemptEnded(ctx, classStore, 0, fmt.Errorf("saving the answer for %s: %w", t.conn, err))
	}
	t.bodies[m.Key] = body
	return nil, nil
}
