package consent

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"regexp"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// verifier derives the PKCE code verifier (RFC 7636 section 4.1: 43 characters)
// of one start, so that it need not be stored.
func verifier(cookie, state token.Secret) token.Secret {
	key, err := hkdf.Key(sha256.New, []byte(cookie.Reveal()), []byte(state.Reveal()), "tokenturn PKCE verifier", 32)
	if err != nil {
		panic(err) // only for a length that SHA-256 cannot expand to
	}
	return token.NewSecret(base64.RawURLEncoding.EncodeToString(key))
}

// challenge is the S256 code challenge (RFC 7636 section 4.2).
func challenge(verifier token.Secret) string {
	sum := sha256.Sum256([]byte(verifier.Reveal()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

var referenceForm = regexp.MustCompile(`^[A-Z2-7]{4}-[A-Z2-7]{4}$`)

// reference names an event to people: it is on the page and in the log. The
// same key gives the same reference, so a repeated callback shows the first one's.
func reference(key string) string {
	sum := sha256.Sum256([]byte("tokenturn reference " + key))
	text := base32.StdEncoding.EncodeToString(sum[:5])
	return text[:4] + "-" + text[4:]
}
