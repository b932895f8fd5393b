package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// revoke revokes, at the issuer, one pair that can no longer become current, and then
// deletes its bytes. So no saved pair stays valid after a disconnect or a new consent.
func (t *reconciliation) revoke(ctx context.Context, m TokenResponse) (*ConnectionReport, error) {
	if m.Key == (ResponseKey{}) {
		return t.search(ctx)
	}
	how, err := t.endPair(ctx, m)
	if err != nil {
		class := classIssuer
		if errors.Is(err, ErrNoApplication) {
			class = classConfig
		}
		return t.failure(ctx, Revoke, m.Key, class, 0, err)
	}
	return nil, t.write(ctx, Change{Bury: []ResponseKey{m.Key}, History: []Event{{Kind: "revoked",
		Epoch: m.Key.Epoch, Generation: m.Key.Generation, Attempt: m.Key.Attempt, Detail: how}}})
}

// revocationTries is how often a server may refuse to let the app credentials revoke a pair
// of another client id (RFC 7009 section 2.1) before no run tries again. At 15 minutes
// apart, that is a day, in which a wrong client id can be corrected.
const revocationTries = 100

const issuedToAnother = "it was issued to another client id than that of the app credentials; its access token " +
	"works until it expires; to end its refresh token, revoke the app's access in Procore"

// endPair revokes the pair of one response. how is the result, for the history.
func (t *reconciliation) endPair(ctx context.Context, m TokenResponse) (how string, err error) {
	body, err := t.open(ctx, m)
	if errors.Is(err, ErrUnsealable) {
		return "its bytes cannot be opened; not revoked", nil
	}
	if err != nil {
		return "", err
	}
	pair := t.engine.issuer.Parse(body).Pair
	if t.rec.Current != nil && lineage(pair) == t.rec.Current.Fingerprint {
		return "a copy of the current pair; not revoked", nil
	}
	// some servers would end the whole grant
	if m.Key.Epoch == t.rec.Epoch && slices.Contains(t.rec.Spent, lineage(pair)) {
		return "a predecessor of the current pair; not revoked", nil
	}
	if pair.AccessToken.IsZero() && pair.RefreshToken.IsZero() {
		return "no token could be read from it; nothing to revoke", nil
	}
	app, err := t.run.application(ctx, t.conn.Environment)
	if err != nil {
		return "", fmt.Errorf("reading the app credentials for %s: %w", t.conn, err)
	}
	how, err = t.revokePair(ctx, app, pair, m.SavedAt)
	if errors.Is(err, ErrCredentialsRefused) && t.run.otherCredentials(ctx, app) {
		return t.endPair(ctx, m)
	}
	if errors.Is(err, ErrCredentialsRefused) && m.Client != "" && m.Client != app.client() {
		if f := t.rec.failure(Revoke, m.Key); f == nil || f.Count < revocationTries {
			return "", fmt.Errorf("revoking a former pair of %s, which was issued to another client id than that of the "+
				"app credentials: %w", t.conn, err)
		}
		t.engine.notify(ctx, NoticeConfigError, t.conn, "A former pair of %s is not revoked, because %s.", t.conn,
			issuedToAnother)
		return "not revoked, because " + issuedToAnother, nil
	}
	if err != nil {
		return "", fmt.Errorf("revoking a former pair of %s: %w", t.conn, err)
	}
	return how, nil
}

// revokePair revokes both halves, because either ends the pair and servers differ in which
// one they accept. Servers answer with success whatever they did (RFC 7009 section 2.2).
// So the result is "revoked" only if the server refuses an access token that has not
// expired.
func (t *reconciliation) revokePair(ctx context.Context, app Application, pair token.Pair,
	savedAt time.Time) (how string, err error) {
	// Some servers keep the parent alive until the first use of its successor. If the
	// successor were revoked unused, the parent would work again.
	used, err := t.accepts(ctx, app, pair.AccessToken)
	if err != nil {
		return "", err
	}
	for _, half := range []token.Secret{pair.AccessToken, pair.RefreshToken} {
		if half.IsZero() {
			continue
		}
		if err := t.engine.endToken(ctx, app, half); err != nil {
			return "", err
		}
	}
	switch expired := !t.engine.clock().Before(pair.ExpiresAt(savedAt)); {
	case pair.AccessToken.IsZero():
		return "revocation requested; without an access token nothing shows whether it succeeded", nil
	case !used && expired:
		return "revocation requested; the access token had expired, and some servers then do nothing", nil
	case !used: // and not expired: it was revoked before
		return "revoked", nil
	}
	still, err := t.accepts(ctx, app, pair.AccessToken)
	switch {
	case err != nil:
		return "", fmt.Errorf("checking whether it was revoked: %w", err)
	case still:
		return "", errors.New("the issuer answered with success but still accepts the access token")
	}
	return "revoked", nil
}

// accepts reports whether the issuer accepts the access token, which counts as a use.
func (t *reconciliation) accepts(ctx context.Context, app Application, access token.Secret) (bool, error) {
	if access.IsZero() {
		return false, nil
	}
	id, err := t.engine.identify(ctx, app, access, "")
	switch {
	case err == nil || id.ClientID != "": // the rest of the answer does not matter
		return true, nil
	case errors.Is(err, ErrTokenRefused):
		return false, nil
	}
	return false, err
}

// search finds answers that arrived after their process had given up. load has read the
// responses in the ledger. search copies the escrow of earlier epochs from the secret
// store to the ledger, where its responses are orphans.
func (t *reconciliation) search(ctx context.Context) (*ConnectionReport, error) {
	stored, unread, err := t.storedResponses(ctx, escrowOnly)
	if err != nil && !errors.Is(err, ErrSecretDeleted) {
		return t.secretFailure(ctx, Revoke, err)
	}
	if unread != nil {
		t.engine.log.WarnContext(ctx, "an answer in escrow cannot be read, so its pair is not revoked", "connection",
			t.conn.String(), "error", unread)
	}
	t.rec.SearchAt = time.Time{}
	former := slices.DeleteFunc(stored, func(m TokenResponse) bool { return m.Key.Epoch >= t.rec.Epoch })
	return nil, t.write(ctx, Change{Copy: former})
}
