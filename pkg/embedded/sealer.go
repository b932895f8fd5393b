package embedded

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// Sealer wraps data keys with AES-256-GCM under the key file. They belong to
// this installation, because no other one has this key file.
type Sealer struct{ s *Store }

var _ rotation.Sealer = Sealer{}

// Sealer returns the store's rotation.Sealer.
func (s *Store) Sealer() Sealer { return Sealer{s} }

// DataKey implements rotation.Sealer.
func (l Sealer) DataKey(ctx context.Context) (key, wrapped []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("making a data key: %w", err)
	}
	key = make([]byte, 32)
	rand.Read(key) // never fails: on an error it ends the program
	return key, l.s.keys.dataKeys.Seal(nil, nil, key, nil), nil
}

// Unwrap implements rotation.Sealer.
func (l Sealer) Unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("unwrapping a data key: %w", err)
	}
	key, err := l.s.keys.dataKeys.Open(nil, nil, wrapped, nil)
	if err != nil {
		return nil, fmt.Errorf("unwrapping a data key with the key file beside %s: %w", l.s.path, rotation.ErrUnsealable)
	}
	return key, nil
}
