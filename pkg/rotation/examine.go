package rotation

import (
	"context"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// The rules of this package, for programs that only examine the stores.

// DueAt is the due time that a write of rec at now would set; zero: none.
func (s Settings) DueAt(rec Record, responses []TokenResponse, now time.Time) time.Time {
	return s.dueAt(rec, responses, now)
}

// Role says what a live response is to its record.
type Role string

const (
	RoleCurrent   Role = "current"
	RoleAncestor  Role = "ancestor"  // what the current response succeeded; kept until that is published
	RoleSuccessor Role = "successor" // answers the current refresh token, whatever its state
	RoleConsent   Role = "consent"   // of the next epoch, waiting to be decided
	RoleOrphan    Role = "orphan"    // to be revoked
	RoleNone      Role = ""          // none that the protocol knows
)

// RoleOf returns the role of a live response.
func RoleOf(rec Record, m TokenResponse) Role {
	switch {
	case rec.Current != nil && m.Key == rec.Current.Response:
		return RoleCurrent
	case rec.Ancestor != nil && m.Key == *rec.Ancestor:
		return RoleAncestor
	case successor(rec, m):
		return RoleSuccessor
	case m.State != Rejected && waitingConsent(rec, m):
		return RoleConsent
	case orphan(rec, m):
		return RoleOrphan
	}
	return RoleNone
}

// ResponseOf rebuilds the response that a document shows. It lacks the fields that the
// document does not need, such as Before.
func ResponseOf(doc token.Document) TokenResponse { return responseOf(doc) }

// Opener opens saved responses, for reading. Safe for concurrent use.
type Opener struct {
	keys   *keyring
	engine *engine
}

// NewOpener makes no call. The Opener calls only Unwrap of sealer and Parse of issuer.
func NewOpener(sealer Sealer, issuer Issuer) *Opener {
	return &Opener{newKeyring(sealer), &engine{issuer: issuer}}
}

// Opened is the content of a response.
type Opened struct {
	Verdict  Verdict
	Pair     token.Pair        // where the verdict has one
	Lineage  token.Fingerprint // by which a successor names the pair
	Document token.Document    // to be published; that of an import has no access token
}

// Open opens m. ErrUnsealable if its bytes were changed or belong elsewhere. Any
// other error says that they could not be opened here and now.
func (o *Opener) Open(ctx context.Context, m TokenResponse) (opened Opened, err error) {
	var body token.Secret
	err = within(ctx, storeTimeout, func(ctx context.Context) error {
		body, err = o.keys.open(ctx, m.Sealed, m.Connection, m.Key)
		return err
	})
	if err != nil {
		return Opened{}, err
	}
	j := o.engine.judge(m.Source, body)
	if m.Source == FromImport {
		j.Pair.AccessToken = token.Secret{}
	}
	j.Pair.Lifetime = m.lifetime(j.Pair)
	return Opened{j.Verdict, j.Pair, lineage(j.Pair), project(m, j.Pair)}, nil
}
