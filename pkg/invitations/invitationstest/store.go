package invitationstest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var _ invitations.Store = (*Store)(nil)

// Store keeps invitations and states in memory. Each call passes the gate
// before and after its effect. The zero value is an empty one.
type Store struct {
	Gate rotationtest.Gate

	mu          sync.Mutex
	invitations map[string]invitations.Invitation
	states      map[string]invitations.State
	consumers   map[string]string // state's hash to the nonce that consumed it
}

// through runs effect between the gates, one call at a time.
func through[T any](ctx context.Context, s *Store, call string, c token.Connection, effect func() (T, error)) (T,
	error) {
	return rotationtest.Through(ctx, s.Gate, "consent."+call, c, func(bool) (T, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.states == nil {
			s.invitations, s.states = map[string]invitations.Invitation{}, map[string]invitations.State{}
			s.consumers = map[string]string{}
		}
		return effect()
	})
}

// write is through for calls without a result.
func (s *Store) write(ctx context.Context, call string, c token.Connection, effect func() error) error {
	_, err := through(ctx, s, call, c, func() (struct{}, error) { return struct{}{}, effect() })
	return err
}

func (s *Store) CreateInvitation(ctx context.Context, i invitations.Invitation) error {
	return s.write(ctx, "CreateInvitation", i.Connection, func() error {
		s.invitations[i.Hash] = i
		return nil
	})
}

func (s *Store) Invitation(ctx context.Context, hash string) (invitations.Invitation, error) {
	return through(ctx, s, "Invitation", token.Connection{}, func() (invitations.Invitation, error) {
		i, found := s.invitations[hash]
		if !found {
			return i, fmt.Errorf("reading an invitation: %w", invitations.ErrNotFound)
		}
		return i, nil
	})
}

func (s *Store) Invitations(ctx context.Context, now time.Time) ([]invitations.Invitation, error) {
	return through(ctx, s, "Invitations", token.Connection{}, func() ([]invitations.Invitation, error) {
		var live []invitations.Invitation
		for _, i := range s.invitations {
			if !i.ExpiresAt.Before(now) {
				live = append(live, i)
			}
		}
		slices.SortFunc(live, func(a, b invitations.Invitation) int {
			return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.Hash, b.Hash))
		})
		return live, nil
	})
}

func (s *Store) RevokeInvitation(ctx context.Context, hash string, now time.Time) error {
	return s.write(ctx, "RevokeInvitation", token.Connection{}, func() error {
		i, found := s.invitations[hash]
		if !found {
			return fmt.Errorf("revoking an invitation: %w", invitations.ErrNotFound)
		}
		if i.RevokedAt.IsZero() {
			i.RevokedAt = now
			s.invitations[hash] = i
		}
		return nil
	})
}

func (s *Store) Start(ctx context.Context, state invitations.State) error {
	return s.write(ctx, "Start", state.Connection, func() error {
		if _, again := s.states[state.Hash]; again {
			return nil // hashes are random: this is the same call, delivered twice
		}
		i, found := s.invitations[state.Invitation]
		switch {
		case !found:
			return fmt.Errorf("starting a consent for %s: %w", state.Connection, invitations.ErrNotFound)
		case !i.Usable(state.CreatedAt):
			return fmt.Errorf("starting a consent for %s: %w", state.Connection, invitations.ErrSpent)
		}
		i.Starts++
		s.invitations[i.Hash] = i
		s.states[state.Hash] = state
		return nil
	})
}

func (s *Store) State(ctx context.Context, hash string) (invitations.State, error) {
	return through(ctx, s, "State", token.Connection{}, func() (invitations.State, error) {
		state, found := s.states[hash]
		if !found {
			return state, fmt.Errorf("reading a state: %w", invitations.ErrNotFound)
		}
		return state, nil
	})
}

func (s *Store) Consume(ctx context.Context, hash, cookie, environment, nonce string, now time.Time) (invitations.State,
	error) {
	return through(ctx, s, "Consume", token.Connection{}, func() (invitations.State, error) {
		state, found := s.states[hash]
		switch {
		case !found, state.Cookie != cookie, state.Environment != environment:
		case !state.ConsumedAt.IsZero() && s.consumers[hash] == nonce:
			return state, nil
		case state.ConsumedAt.IsZero() && now.Before(state.ExpiresAt):
			state.ConsumedAt = now
			s.states[hash], s.consumers[hash] = state, nonce
			return state, nil
		}
		return invitations.State{}, fmt.Errorf("consuming a state: %w", invitations.ErrRefused)
	})
}

func (s *Store) Conclude(ctx context.Context, state invitations.State, result string, used bool, now time.Time) error {
	return s.write(ctx, "Conclude", state.Connection, func() error {
		stored, found := s.states[state.Hash]
		if !found {
			return fmt.Errorf("concluding a consent for %s: %w", state.Connection, invitations.ErrNotFound)
		}
		stored.Result = result
		s.states[state.Hash] = stored
		if i, found := s.invitations[stored.Invitation]; found && used && i.UsedAt.IsZero() {
			i.UsedAt = now
			s.invitations[i.Hash] = i
		}
		return nil
	})
}
