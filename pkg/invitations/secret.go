package invitations

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"regexp"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// secretForm is what NewSecret makes: alphanumeric, because Procore asks for an
// alphanumeric state, and of one length, so that anything else is refused
// without asking a store.
var secretForm = regexp.MustCompile(`^[A-Z2-7]{52}$`)

// NewSecret returns 260 random bits as 52 letters and digits.
func NewSecret() token.Secret { return token.NewSecret(rand.Text() + rand.Text()) }

// ParseSecret accepts what NewSecret makes.
func ParseSecret(text string) (token.Secret, bool) {
	return token.NewSecret(text), secretForm.MatchString(text)
}

// Hash is the form in which invitations, states and cookies are stored.
func Hash(s token.Secret) string {
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:])
}
