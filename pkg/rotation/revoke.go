package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// revoke ends, at the issuer, one pair that can no longer become current, and
// then forgets its bytes. Nothing saved lives on after a disconnect or a new
// consent.
func (t *turn) revoke(ctx context.Context, m Mint) (*ConnectionReport, error) {
	if m.Key == (MintKey{}) {
		return t.searchResidue(ctx)
	}
	how, err := t.endPair(ctx, m)
	if err != nil {
		class := classIssuer
		if errors.Is(err, ErrNoApplication) {
			class = classConfig
		}
		return t.failure(ctx, Revoke, m.Key, class, 0, err)
	}
	return nil, t.write(ctx, Change{Bury: []MintKey{m.Key}, History: []Event{{Kind: "revoked",
		Epoch: m.Key.Epoch, Generation: m.Key.Generation, Attempt: m.Key.Attempt, Detail: how}}})
}

// endPair revokes the pair of one mint and says what can be said of it.
func (t *turn) endPair(ctx context.Context, m Mint) (how string, err error) {
	body, err := t.open(ctx, m)
	if errors.Is(err, ErrUnsealable) {
		return "its bytes cannot be opened; not revoked", nil
	}
	if err != nil {
		return "", err
	}
	pair := t.issuer.Parse(body).Pair
	if t.rec.Current != nil && lineage(pair) == t.rec.Current.Fingerprint {
		return "a copy of the current pair; not revoked", nil
	}
	if pair.AccessToken.IsZero() && pair.RefreshToken.IsZero() {
		return "no token could be read from it; nothing to revoke", nil
	}
	app, err := t.application(ctx, t.conn.Environment)
	if err != nil {
		return "", fmt.Errorf("reading the app credentials for %s: %w", t.conn, err)
	}
	// A server that lets the parent live until the successor's first use would
	// bring it back to life if the successor were revoked unused.
	if !pair.AccessToken.IsZero() {
		if id, err := t.identify(ctx, app, pair.AccessToken, ""); err != nil && !errors.Is(err, ErrTokenRefused) && id.ClientID == "" {
			return "", fmt.Errorf("revoking a former pair of %s: %w", t.conn, err)
		}
	}
	// Both halves: which one a server looks at differs, and either ends the pair.
	for _, half := range []token.Secret{pair.AccessToken, pair.RefreshToken} {
		if half.IsZero() {
			continue
		}
		if err := t.endToken(ctx, app, half); err != nil {
			return "", fmt.Errorf("revoking a former pair of %s: %w", t.conn, err)
		}
	}
	if !pair.AccessToken.IsZero() && !t.clock().Before(pair.ExpiresAt(m.SavedAt)) {
		return "revocation asked for; the access token had expired, and some servers then do nothing", nil
	}
	return "revoked", nil
}

// searchResidue copies what the vault still holds in escrow of former epochs
// into the ledger, where it is an orphan.
func (t *turn) searchResidue(ctx context.Context) (*ConnectionReport, error) {
	stored, err := t.storedMints(ctx, isEscrow)
	if err != nil && !errors.Is(err, ErrSecretDeleted) {
		return t.vaultFailure(ctx, Revoke, err)
	}
	t.rec.Residue = time.Time{}
	former := slices.DeleteFunc(stored, func(m Mint) bool { return m.Key.Epoch >= t.rec.Epoch })
	return nil, t.write(ctx, Change{Copy: former})
}
