// Package invitations has the links with which people are invited to connect an
// account, and the states of the authorization requests that they start: what is stored
// of both, and the port to the store. Package consent has the handler and the pages.
package invitations

import (
	"context"
	"errors"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Errors of a Store, possibly wrapped. Any other error means that the call may
// or may not have taken effect.
var (
	// ErrNotFound: there is no such invitation or state.
	ErrNotFound = errors.New("not found")
	// ErrSpent: the invitation is used, revoked, expired, or started too often.
	ErrSpent = errors.New("the invitation can no longer be used")
	// ErrRefused: the state is not there, expired, consumed before, of another
	// environment, or bound to another browser. Deliberately one error.
	ErrRefused = errors.New("the state is refused")
)

// MaxStarts is how often one invitation may be started.
const MaxStarts = 5

// Invitation lets one person connect one named connection, once. Only the hash
// of the link's secret part is stored.
//
// It holds for the epoch that the connection had when it was made: a consent, import
// or disconnect raises the epoch and so ends every earlier invitation. Therefore an
// invitation succeeds only once, even if its success could not be recorded or was
// known only later (rotation.Verifying), and no link revives a disconnected connection.
type Invitation struct {
	Hash       string            `json:"hash"` // hex SHA-256 of the secret part of the link
	Connection token.Connection  `json:"connection"`
	Expect     rotation.Identity `json:"expect"`
	Epoch      int64             `json:"epoch"`
	CreatedAt  time.Time         `json:"created_at"`
	ExpiresAt  time.Time         `json:"expires_at"`
	Starts     int               `json:"starts"`
	UsedAt     time.Time         `json:"used_at,omitzero"`
	RevokedAt  time.Time         `json:"revoked_at,omitzero"`
	// ReturnURL is where the person is led back to afterwards; empty: nowhere.
	ReturnURL string `json:"return_url,omitempty"`
}

// Usable reports whether the invitation can be started at the given time.
func (i Invitation) Usable(now time.Time) bool {
	return i.UsedAt.IsZero() && i.RevokedAt.IsZero() && now.Before(i.ExpiresAt) && i.Starts < MaxStarts
}

// State is one start of an invitation: it binds the redirect to the browser
// that started, to the environment, and to the connection's epoch at that time.
type State struct {
	Hash        string            `json:"hash"`   // hex SHA-256 of the state parameter
	Cookie      string            `json:"cookie"` // hex SHA-256 of the cookie's value
	Environment string            `json:"environment"`
	Connection  token.Connection  `json:"connection"`
	Invitation  string            `json:"invitation"` // its hash
	RedirectURI string            `json:"redirect_uri"`
	Expect      rotation.Identity `json:"expect"`
	Epoch       int64             `json:"epoch"`
	CreatedAt   time.Time         `json:"created_at"`
	ExpiresAt   time.Time         `json:"expires_at"`
	ConsumedAt  time.Time         `json:"consumed_at,omitzero"`
	Result      string            `json:"result,omitempty"` // name of the result page, once there is one
	ReturnURL   string            `json:"return_url,omitempty"`
}

// Store keeps invitations and states. It is safe for concurrent use by many
// processes; reads see every write acknowledged before. Rows past their
// ExpiresAt may still be there: implementations compare the time and never rely
// on the absence of a row. A write that the transport repeated after it had taken effect
// is a success.
type Store interface {
	// CreateInvitation stores a new invitation.
	CreateInvitation(ctx context.Context, i Invitation) error
	// Invitation reads one by its hash. ErrNotFound.
	Invitation(ctx context.Context, hash string) (Invitation, error)
	// Invitations lists those that have not expired before now, newest first.
	Invitations(ctx context.Context, now time.Time) ([]Invitation, error)
	// RevokeInvitation makes it unusable. Revoking twice is no error. ErrNotFound.
	RevokeInvitation(ctx context.Context, hash string, now time.Time) error
	// Start stores s and counts a start of its invitation, both or neither.
	// ErrSpent if the invitation is not usable at s.CreatedAt; ErrNotFound.
	Start(ctx context.Context, s State) error
	// State reads one by its hash, consumed or not. ErrNotFound.
	State(ctx context.Context, hash string) (State, error)
	// Consume marks the state as used in one conditional step: only if it is
	// there, unexpired at now, unconsumed, of that environment, and its cookie
	// Hash equals cookie. nonce distinguishes a repeated write of this call
	// from another consumer. Otherwise ErrRefused and nothing changes.
	Consume(ctx context.Context, hash, cookie, environment, nonce string, now time.Time) (State, error)
	// Conclude records the result page of a consumed state for repeats and, if
	// used is set, marks its invitation as used at now. ErrNotFound.
	Conclude(ctx context.Context, s State, result string, used bool, now time.Time) error
}
