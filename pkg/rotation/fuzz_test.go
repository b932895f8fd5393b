package rotation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// For any value of a version: what is taken for an escrowed answer was written as one, and
// is the same response again.
func FuzzEscrowedResponse(f *testing.F) {
	good, err := json.Marshal(escrowed{1, successorResponse()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("escrow-1", string(good))
	f.Add("1", string(good))
	f.Add("escrow-", `{"escrow":1,"mint":{"key":{"epoch":-9223372036854775808},"sealed":"AQ=="}}`)
	f.Add("escrow-2", `{"escrow":2}`)
	f.Fuzz(func(t *testing.T, id, value string) {
		m, ok := EscrowedResponse(Version{ID: id, Value: token.NewSecret(value)})
		if !ok || m.Connection.IsZero() { // of no connection, so never read
			return
		}
		text, err := json.Marshal(escrowed{1, m})
		if err != nil {
			t.Fatalf("%q is read and cannot be written: %v", value, err)
		}
		again, ok := EscrowedResponse(Version{ID: id, Value: token.NewSecret(string(text))})
		if !ok || again.Key != m.Key || again.Connection != m.Connection || !bytes.Equal(again.Sealed, m.Sealed) {
			t.Errorf("%q is read as another response: %+v, %+v", value, m, again)
		}
	})
}

// oneKey wraps one data key as four bytes.
type oneKey struct{}

func (oneKey) DataKey(context.Context) (key, wrapped []byte, err error) {
	return make([]byte, 32), []byte("wrap"), nil
}

func (oneKey) Unwrap(_ context.Context, wrapped []byte) ([]byte, error) {
	if string(wrapped) != "wrap" {
		return nil, ErrUnsealable
	}
	return make([]byte, 32), nil
}

// Bytes that were not sealed here are never opened.
func FuzzOpen(f *testing.F) {
	keys := newKeyring(oneKey{})
	key, err := keys.ready(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	at := ResponseKey{1, 6, "a6"}
	sealed := key.seal(token.NewSecret("canary"), acme, at)
	f.Add([]byte{})
	f.Add([]byte{sealVersion, 0xff, 0xff, 0})
	f.Add([]byte{sealVersion, 0, 4, 'w', 'r', 'a', 'p', 1, 2, 3})
	f.Add(sealed[:len(sealed)-1])
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, text []byte) {
		body, err := keys.open(t.Context(), text, acme, at)
		switch {
		case err == nil && body.Reveal() != "canary":
			t.Errorf("%x is opened, and was never sealed", text)
		case bytes.Equal(text, sealed) && err != nil, err != nil && !errors.Is(err, ErrUnsealable):
			t.Errorf("%x is not opened: %v", text, err)
		}
	})
}
