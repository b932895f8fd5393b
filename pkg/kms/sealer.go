// Package kms makes and opens data keys under an AWS KMS key. It needs the
// actions GenerateDataKey to seal and Decrypt to open.
package kms

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// Client is the part of *kms.Client that the package uses. Its configuration must bound the
// time of a call.
type Client interface {
	GenerateDataKey(context.Context, *kms.GenerateDataKeyInput, ...func(*kms.Options)) (*kms.GenerateDataKeyOutput, error)
	Decrypt(context.Context, *kms.DecryptInput, ...func(*kms.Options)) (*kms.DecryptOutput, error)
}

// stackContext is the key of the encryption context that binds data keys to an
// installation. Key policies may refer to it as
// kms:EncryptionContext:tokenturn:stack.
const stackContext = "tokenturn:stack"

// Sealer is a rotation.Sealer. It is safe for concurrent use.
type Sealer struct {
	client Client
	key    string
	bound  map[string]string
}

var (
	_ Client          = (*kms.Client)(nil)
	_ rotation.Sealer = (*Sealer)(nil)
)

// New returns a sealer that makes data keys under the KMS key with the given
// id, ARN or alias, bound to the stack. It makes no call.
func New(client Client, key, stack string) *Sealer {
	return &Sealer{client, key, map[string]string{stackContext: stack}}
}

// DataKey implements rotation.Sealer.
func (s *Sealer) DataKey(ctx context.Context) (key, wrapped []byte, err error) {
	out, err := s.client.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &s.key, KeySpec: types.DataKeySpecAes256,
		EncryptionContext: s.bound})
	if err != nil {
		return nil, nil, fmt.Errorf("making a data key under KMS key %s: %w", s.key, err)
	}
	return out.Plaintext, out.CiphertextBlob, nil
}

// Unwrap implements rotation.Sealer. The wrapped bytes identify the KMS key, so the
// request does not name it: after an alias has moved to another key, bytes of the earlier
// key can still be opened. The role's policy says which keys may be used.
func (s *Sealer) Unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	if len(wrapped) == 0 { // the client would refuse to send it
		return nil, fmt.Errorf("unwrapping a data key: it is empty: %w", rotation.ErrUnsealable)
	}
	out, err := s.client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: wrapped, EncryptionContext: s.bound})
	switch {
	case hopeless(err):
		return nil, fmt.Errorf("unwrapping a data key: %w: %w", rotation.ErrUnsealable, err)
	case err != nil:
		return nil, fmt.Errorf("unwrapping a data key: %w", err)
	}
	return out.Plaintext, nil
}

// hopeless reports whether the bytes themselves cannot be opened: they were changed, made
// under another context, or not for this kind of key. A missing permission, and a key that
// is disabled or scheduled for deletion, can be repaired and are not hopeless.
func hopeless(err error) bool {
	_, changed := errors.AsType[*types.InvalidCiphertextException](err)
	_, otherKey := errors.AsType[*types.IncorrectKeyException](err)
	return changed || otherKey
}
