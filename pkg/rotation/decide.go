package rotation

import (
	"context"
	"errors"
	"fmt"
)

// decide judges a saved response. A crash before its write leaves the response as it
// is, to be decided by the next run; after it, the pair is current and only
// remains to be published.
func (t *turn) decide(ctx context.Context, m TokenResponse) (*ConnectionReport, error) {
	body, err := t.open(ctx, m)
	if errors.Is(err, ErrUnsealable) {
		// Far more often a wrong setting than damage, so it must heal with it.
		return t.failure(ctx, Decide, m.Key, classConfig, 0, fmt.Errorf("a saved answer of %s cannot be opened: check TOKENTURN_STACK and TOKENTURN_SEAL_KEY (on one machine, the key file); "+
			"if it is damaged, run `tokenturn connection discard %s`: %w", t.conn, t.conn, err))
	}
	if err != nil {
		return t.failure(ctx, Decide, m.Key, classStore, 0, err)
	}
	a := t.rec.Attempt
	abandoned := t.rec.Status == NeedsConsent || a != nil && a.ID != t.presented && !t.now.Before(a.Until)
	next, err := t.decideOn(ctx, t.rec, t.responses, m, body)
	switch _, wrong := errors.AsType[*identityError](err); {
	case wrong:
		return nil, nil // rejected; plan goes on to revoke it
	case errors.Is(err, ErrConflict):
		return nil, err
	case err != nil:
		return t.failure(ctx, Decide, m.Key, classIssuer, 0, err)
	}
	if next.Current == nil || next.Current.Response != m.Key {
		return nil, nil // quarantined or rejected
	}
	if m.Source == FromRefresh && abandoned {
		t.did = Recovered
		t.notify(ctx, NoticeRecovered, t.conn, "A pair that an earlier run had saved was found; the connection is in order again.")
	}
	return nil, nil
}
