package rotationtest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var _ rotation.Sealer = (*Sealer)(nil)

// Sealer wraps data keys under a key that exists only in this process.
type Sealer struct {
	Gate Gate
	key  []byte
}

// NewSealer makes the sealer of a new installation.
func NewSealer() *Sealer { return &Sealer{key: randomKey()} }

// Again is another process of the same installation.
func (s *Sealer) Again() *Sealer { return &Sealer{s.Gate, s.key} }

type dataKey struct{ key, wrapped []byte }

func (s *Sealer) DataKey(ctx context.Context) (key, wrapped []byte, err error) {
	made, err := Through(ctx, s.Gate, "sealer.DataKey", token.Connection{}, func(bool) (dataKey, error) {
		key := randomKey()
		return dataKey{key, s.aead().Seal(nil, nil, key, nil)}, nil
	})
	return made.key, made.wrapped, err
}

func (s *Sealer) Unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	return Through(ctx, s.Gate, "sealer.Unwrap", token.Connection{}, func(bool) ([]byte, error) {
		key, err := s.aead().Open(nil, nil, wrapped, nil)
		if err != nil {
			return nil, fmt.Errorf("unwrapping a data key: %w", rotation.ErrUnsealable)
		}
		return key, nil
	})
}

func (s *Sealer) aead() cipher.AEAD {
	block, err := aes.NewCipher(s.key)
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func randomKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return key
}
