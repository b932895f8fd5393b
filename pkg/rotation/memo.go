package rotation

import (
	"context"
	"sync"
)

// memo keeps values that one run reads once. Callers that come at the same time wait for
// the first one. If its read fails, the next one reads. Safe for concurrent use.
type memo[K comparable, V any] struct {
	mu      sync.Mutex // never held across a read
	entries map[K]*memoEntry[V]
}

type memoEntry[V any] struct {
	free  chan struct{} // has an element while nobody reads
	known bool
	value V
}

// get returns the value of key, and reads it if it is not known.
func (m *memo[K, V]) get(ctx context.Context, key K, read func(context.Context) (V, error)) (V, error) {
	e := m.entry(key)
	select {
	case <-e.free:
		defer func() { e.free <- struct{}{} }()
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
	if e.known {
		return e.value, nil
	}
	value, err := read(ctx)
	if err == nil {
		e.value, e.known = value, true
	}
	return value, err
}

// set replaces the value of key.
func (m *memo[K, V]) set(key K, value V) {
	e := m.entry(key)
	<-e.free
	e.value, e.known = value, true
	e.free <- struct{}{}
}

func (m *memo[K, V]) entry(key K) *memoEntry[V] {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries == nil {
		m.entries = map[K]*memoEntry[V]{}
	}
	if m.entries[key] == nil {
		e := &memoEntry[V]{free: make(chan struct{}, 1)}
		e.free <- struct{}{}
		m.entries[key] = e
	}
	return m.entries[key]
}
