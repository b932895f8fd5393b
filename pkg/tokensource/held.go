package tokensource

import (
	"time"

	"golang.org/x/oauth2"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// held is a document, its token as package oauth2 has it, and until when they are used
// without a look at the secret. The time has no monotonic part, because that clock stands
// still while a Lambda function is frozen.
type held struct {
	document token.Document
	token    *oauth2.Token
	checkAt  time.Time
}

func hold(d token.Document, checkAt time.Time) *held {
	return &held{d, &oauth2.Token{AccessToken: d.AccessToken.Reveal(), TokenType: d.TokenType, Expiry: d.ExpiresAt},
		checkAt}
}

// supersedes reports whether d is to be served in place of h. Reads of Secrets Manager may be
// stale, so a lower document never replaces a higher one that lives; one
// that outlives it comes from an installation that started anew.
func supersedes(d token.Document, h *held, now time.Time) bool {
	return h == nil || !newer(h.document, d) || !alive(h, now) && d.ExpiresAt.After(now)
}

// newer reports whether a comes after b.
func newer(a, b token.Document) bool {
	return a.Epoch > b.Epoch || a.Epoch == b.Epoch && a.Generation > b.Generation
}

func alive(h *held, now time.Time) bool {
	return h != nil && (h.document.ExpiresAt.IsZero() || now.Before(h.document.ExpiresAt))
}

// earlier is the earlier of two times, of which the second may be zero: never.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}
