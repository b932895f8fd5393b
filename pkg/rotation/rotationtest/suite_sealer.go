package rotationtest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// TestSealer is the contract of rotation.Sealer. open returns two sealers of
// one installation and one of another.
func TestSealer(t *testing.T, open func(t *testing.T) (a, sameKeys, other rotation.Sealer)) {
	dataKey := func(t *testing.T, s rotation.Sealer) (key, wrapped []byte) {
		t.Helper()
		key, wrapped, err := s.DataKey(t.Context())
		if err != nil {
			t.Fatalf("making a data key: %v", err)
		}
		return key, wrapped
	}
	t.Run("a key has 32 bytes and is not in its wrapping", func(t *testing.T) {
		a, _, _ := open(t)
		key, wrapped := dataKey(t, a)
		if len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
			t.Errorf("the key has %d bytes, or only zeros", len(key))
		}
		if bytes.Contains(wrapped, key) {
			t.Error("the wrapped key has the key in clear")
		}
	})
	t.Run("keys differ from call to call", func(t *testing.T) {
		a, _, _ := open(t)
		seen := map[string]bool{}
		for range 20 {
			key, wrapped := dataKey(t, a)
			if seen[string(key)] || seen[string(wrapped)] {
				t.Fatal("a key came twice")
			}
			seen[string(key)], seen[string(wrapped)] = true, true
		}
	})
	t.Run("the installation unwraps its keys, again and again", func(t *testing.T) {
		a, sameKeys, _ := open(t)
		key, wrapped := dataKey(t, a)
		before := slices.Clone(wrapped)
		for n, s := range []rotation.Sealer{a, sameKeys, a} {
			got, err := s.Unwrap(t.Context(), wrapped)
			if err != nil || !bytes.Equal(got, key) {
				t.Errorf("unwrap %d: another key, or %v", n, err)
			}
			clear(got) // as a careful caller does
		}
		if !bytes.Equal(wrapped, before) {
			t.Error("unwrapping changed the wrapped key")
		}
	})
	t.Run("another installation does not", func(t *testing.T) {
		a, _, other := open(t)
		_, wrapped := dataKey(t, a)
		_, err := other.Unwrap(t.Context(), wrapped)
		refuses(t, "Unwrap", err, rotation.ErrUnsealable)
		_, wrapped = dataKey(t, other)
		_, err = a.Unwrap(t.Context(), wrapped)
		refuses(t, "Unwrap", err, rotation.ErrUnsealable)
	})
	t.Run("a damaged wrapping does not unwrap", func(t *testing.T) {
		a, _, _ := open(t)
		key, wrapped := dataKey(t, a)
		damaged := map[string][]byte{"nothing": nil, "one byte": {1}, "a half": wrapped[:len(wrapped)/2],
			"a byte more": append(slices.Clone(wrapped), 0), "the key itself": key}
		for _, at := range []int{0, len(wrapped) / 2, len(wrapped) - 1} {
			flipped := slices.Clone(wrapped)
			flipped[at] ^= 1
			damaged[fmt.Sprint("a flipped bit at ", at)] = flipped
		}
		for name, bytes := range damaged {
			_, err := a.Unwrap(t.Context(), bytes)
			refuses(t, "Unwrap of "+name, err, rotation.ErrUnsealable)
		}
	})
	t.Run("a cancelled context is an error", func(t *testing.T) {
		a, _, _ := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := a.DataKey(ctx); err == nil {
			t.Error("DataKey: no error")
		}
	})
	t.Run("many at once", func(t *testing.T) {
		a, _, _ := open(t)
		for _, r := range race(16, func(int) (bool, error) {
			key, wrapped, err := a.DataKey(t.Context())
			if err != nil {
				return false, err
			}
			got, err := a.Unwrap(t.Context(), wrapped)
			return bytes.Equal(got, key), err
		}) {
			if r.err != nil || !r.value {
				t.Errorf("a key did not come back: %v", r.err)
			}
		}
	})
}
