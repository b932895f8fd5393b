package rotation

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// RotateAll does what Rotate does for each of several connections, as one run:
// app credentials are read once, and an app that is refused stops its own
// connections only. Once ctx is cancelled none is begun any more, and what was
// begun is finished. told, if not nil, is called with each report as it comes, never
// twice at a time.
func (r *Rotator) RotateAll(ctx context.Context, several []token.Connection, told func(ConnectionReport)) Report {
	started := time.Now()
	run := r.newRun()
	working := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		working, cancel = context.WithDeadline(working, deadline)
		defer cancel()
	}
	reports := make([]ConnectionReport, len(several))
	var group errgroup.Group
	group.SetLimit(r.settings.Concurrency)
	var telling sync.Mutex
	for i, c := range several {
		group.Go(func() error {
			if ctx.Err() != nil {
				reports[i] = ConnectionReport{Connection: c, Outcome: Deferred, Detail: "interrupted before its turn"}
			} else {
				reports[i] = run.connection(working, c, situation{force: true})
			}
			if told != nil {
				telling.Lock()
				defer telling.Unlock()
				told(reports[i])
			}
			return nil
		})
	}
	_ = group.Wait()
	run.tellUntold(working)
	return newReport("rotate", started, reports)
}
