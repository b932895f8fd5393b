package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// mostNotices is the number of notices kept; older ones are in the log.
const mostNotices = 100

// noticeBoard keeps the notices of this process for the console.
type noticeBoard struct {
	mu      sync.Mutex
	notices []rotation.Notice // newest first
}

var _ rotation.Notifier = (*noticeBoard)(nil)

// Notify implements rotation.Notifier. The clock of the process that sends the notice may be ahead.
func (b *noticeBoard) Notify(_ context.Context, n rotation.Notice) error {
	if now := time.Now(); n.At.After(now) {
		n.At = now
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notices = append([]rotation.Notice{n}, b.notices[:min(len(b.notices), mostNotices-1)]...)
	return nil
}

// newestFirst returns the notices.
func (b *noticeBoard) newestFirst() []rotation.Notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.notices)
}
