package rotation

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// sealVersion is the first byte of sealed bytes:
// version (1) | length of the wrapped key (2) | wrapped key | nonce and ciphertext of AES-256-GCM.
const sealVersion = 1

// keyring shares data keys within one run: it makes one key, and unwraps each wrapped key
// once. A call of the sealer has storeTimeout; callers have twice that, so that another call
// can follow one that hangs. Safe for concurrent use.
type keyring struct {
	sealer    Sealer
	made      memo[struct{}, *dataKey]
	unwrapped memo[string, cipher.AEAD]
}

func newKeyring(s Sealer) *keyring { return &keyring{sealer: s} }

// dataKey seals without any call, so that nothing that can fail comes between receiving an
// answer and saving it.
type dataKey struct {
	aead    cipher.AEAD
	wrapped []byte
}

// ready returns the run's data key, made on the first call.
func (k *keyring) ready(ctx context.Context) (*dataKey, error) {
	return k.made.get(ctx, struct{}{}, func(ctx context.Context) (*dataKey, error) {
		var key, wrapped []byte
		err := within(ctx, storeTimeout, func(ctx context.Context) (err error) {
			key, wrapped, err = k.sealer.DataKey(ctx)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("making a data key: %w", err)
		}
		aead, err := newAEAD(key)
		if err != nil {
			return nil, fmt.Errorf("making a data key: %w", err)
		}
		k.unwrapped.set(string(wrapped), aead)
		return &dataKey{aead, wrapped}, nil
	})
}

// seal encrypts the body of an answer and binds it to its connection and key.
func (d *dataKey) seal(body token.Secret, c token.Connection, key ResponseKey) []byte {
	out := append([]byte{sealVersion}, binary.BigEndian.AppendUint16(nil, uint16(len(d.wrapped)))...)
	out = append(out, d.wrapped...)
	return d.aead.Seal(out, nil, []byte(body.Reveal()), bound(c, key))
}

// open is the reverse of seal. ErrUnsealable if the bytes were changed, belong to another
// connection or key, or come from another installation.
func (k *keyring) open(ctx context.Context, sealed []byte, c token.Connection, key ResponseKey) (token.Secret, error) {
	if len(sealed) < 3 || sealed[0] != sealVersion {
		return token.Secret{}, fmt.Errorf("opening the answer of %s: unknown format: %w", c, ErrUnsealable)
	}
	n := int(binary.BigEndian.Uint16(sealed[1:3]))
	if len(sealed) < 3+n {
		return token.Secret{}, fmt.Errorf("opening the answer of %s: cut off: %w", c, ErrUnsealable)
	}
	aead, err := k.unwrap(ctx, sealed[3:3+n])
	if err != nil {
		return token.Secret{}, fmt.Errorf("opening the answer of %s: %w", c, err)
	}
	body, err := aead.Open(nil, nil, sealed[3+n:], bound(c, key))
	if err != nil {
		return token.Secret{}, fmt.Errorf("opening the answer of %s: %w", c, ErrUnsealable)
	}
	return token.NewSecret(string(body)), nil
}

func (k *keyring) unwrap(ctx context.Context, wrapped []byte) (cipher.AEAD, error) {
	return k.unwrapped.get(ctx, string(wrapped), func(ctx context.Context) (cipher.AEAD, error) {
		var key []byte
		err := within(ctx, storeTimeout, func(ctx context.Context) (err error) {
			key, err = k.sealer.Unwrap(ctx, wrapped)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("unwrapping the data key: %w", err)
		}
		return newAEAD(key)
	})
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// bound is the additional data: sealed bytes cannot be moved to another connection, epoch,
// generation or purpose. It does not include the attempt, so that a published document can
// be opened without it.
func bound(c token.Connection, key ResponseKey) []byte {
	return fmt.Appendf(nil, "tokenturn answer\x00%s\x00%d\x00%d", c, key.Epoch, key.Generation)
}
