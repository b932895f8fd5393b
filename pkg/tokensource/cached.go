package tokensource

import (
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// cached is a document, its token as an oauth2.Token, and the time until which they are
// used without a read of the secret. The time has no monotonic part, because that clock
// stops while a Lambda function is frozen.
type cached struct {
	document token.Document
	token    *oauth2.Token
	checkAt  time.Time
}

func newCached(d token.Document, checkAt time.Time) *cached {
	return &cached{d, &oauth2.Token{AccessToken: d.AccessToken.Reveal(), TokenType: d.TokenType, Expiry: d.ExpiresAt},
		checkAt}
}

// supersedes reports whether d replaces h. Reads of Secrets Manager may be stale, so a
// lower document never replaces a higher one that is still valid. A lower one that is
// valid after the higher one expired comes from a new installation.
func supersedes(d token.Document, h *cached, now time.Time) bool {
	return h == nil || !newer(h.document, d) || !alive(h, now) && d.ExpiresAt.After(now)
}

// newer reports whether a has a higher (epoch, generation) than b.
func newer(a, b token.Document) bool {
	return a.Epoch > b.Epoch || a.Epoch == b.Epoch && a.Generation > b.Generation
}

func alive(h *cached, now time.Time) bool {
	return h != nil && (h.document.ExpiresAt.IsZero() || now.Before(h.document.ExpiresAt))
}

// earlier returns the earlier of two times. A zero second time means never.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}
