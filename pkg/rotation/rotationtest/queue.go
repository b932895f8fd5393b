package rotationtest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var _ rotation.FollowUps = (*FollowUps)(nil)

// FollowUps is the queue. A received message is invisible for a while and comes again unless
// it is deleted. After MaxReceives it becomes a dead letter. Take is a shortcut for tests
// that need none of this. The zero value is an empty one.
type FollowUps struct {
	Gate    Gate
	Journal *Journal
	// Visibility is how long a received message is invisible; 0: as in template.yaml.
	Visibility time.Duration
	// MaxReceives is how often a message is received; 0: as in template.yaml.
	MaxReceives int

	mu      sync.Mutex
	sent    int
	queue   []*queued
	dead    []rotation.Request
	sending chan struct{}
}

// The values of the queue in template.yaml.
const (
	visibility  = 5400 * time.Second
	maxReceives = 5
)

type queued struct {
	Message
	visibleAt time.Time
}

// Message is a received message.
type Message struct {
	ID       int
	Request  rotation.Request
	Receives int
}

func (f *FollowUps) Send(ctx context.Context, request rotation.Request, delay time.Duration) error {
	_, err := Through(ctx, f.Gate, "followups.Send", token.Connection{}, func(bool) (struct{}, error) {
		if delay < 0 || delay > rotation.MaxDelay {
			return struct{}{}, fmt.Errorf("the delay %v is not between 0 and %v", delay, rotation.MaxDelay)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.sent++
		f.queue = append(f.queue, &queued{Message{ID: f.sent, Request: request}, time.Now().Add(delay)})
		f.Journal.Add(ctx, token.Connection{}, Queued{request, delay})
		close(f.bell())
		f.sending = nil
		return struct{}{}, nil
	})
	return err
}

// bell returns a channel that the next Send closes. It requires the lock.
func (f *FollowUps) bell() chan struct{} {
	if f.sending == nil {
		f.sending = make(chan struct{})
	}
	return f.sending
}

// Take removes the requests that are visible now and returns them, the earliest first.
func (f *FollowUps) Take() []rotation.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sort()
	var due []rotation.Request
	for len(f.queue) > 0 && !f.queue[0].visibleAt.After(time.Now()) {
		due = append(due, f.queue[0].Request)
		f.queue = f.queue[1:]
	}
	return due
}

func (f *FollowUps) sort() {
	slices.SortStableFunc(f.queue, func(a, b *queued) int {
		return cmp.Or(a.visibleAt.Compare(b.visibleAt), cmp.Compare(a.ID, b.ID))
	})
}

// Next is when the next message is visible; zero: there is none.
func (f *FollowUps) Next() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sort()
	if len(f.queue) == 0 {
		return time.Time{}
	}
	return f.queue[0].visibleAt
}

// Receive waits for a message until the given time, or until ctx ends, and makes it
// invisible.
func (f *FollowUps) Receive(ctx context.Context, until time.Time) (Message, bool) {
	for {
		f.mu.Lock()
		bell := f.bell()
		f.mu.Unlock()
		if m, ok := f.receive(); ok {
			return m, true
		}
		wake := until
		if next := f.Next(); !next.IsZero() && next.Before(until) {
			wake = next
		}
		timer := time.NewTimer(time.Until(wake))
		select {
		case <-bell:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil || !time.Now().Before(until) {
			return Message{}, false
		}
	}
}

func (f *FollowUps) receive() (Message, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sort()
	for len(f.queue) > 0 && !f.queue[0].visibleAt.After(time.Now()) {
		m := f.queue[0]
		if m.Receives >= cmp.Or(f.MaxReceives, maxReceives) {
			f.dead = append(f.dead, m.Request)
			f.queue = f.queue[1:]
			continue
		}
		m.Receives++
		m.visibleAt = time.Now().Add(cmp.Or(f.Visibility, visibility))
		return m.Message, true
	}
	return Message{}, false
}

// Delete removes a message that was processed.
func (f *FollowUps) Delete(id int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = slices.DeleteFunc(f.queue, func(m *queued) bool { return m.ID == id })
}

// Waiting lists the messages that are visible now and were not received.
func (f *FollowUps) Waiting() (requests []rotation.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.queue {
		if !m.visibleAt.After(time.Now()) {
			requests = append(requests, m.Request)
		}
	}
	return requests
}

// Coming lists when the invisible messages of an operation become visible.
func (f *FollowUps) Coming(op string) (at []time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.queue {
		if m.Request.Op == op && m.visibleAt.After(time.Now()) {
			at = append(at, m.visibleAt)
		}
	}
	return at
}

// Dead lists the messages that were received too often.
func (f *FollowUps) Dead() []rotation.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.dead)
}
