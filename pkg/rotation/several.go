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
// connections only. told, if not nil, is called with each report as it comes,
// never twice at a time.
func (r *Rotator) RotateAll(ctx context.Context, several []token.Connection, told func(ConnectionReport)) Report {
	started := time.Now()
	run := r.newRun()
	reports := make([]ConnectionReport, len(several))
	var group errgroup.Group
	group.SetLimit(r.settings.Concurrency)
	var telling sync.Mutex
	for i, c := range several {
		group.Go(func() error {
			reports[i] = run.connection(ctx, c, situation{force: true})
			if told != nil {
				telling.Lock()
				defer telling.Unlock()
				told(reports[i])
			}
			return nil
		})
	}
	_ = group.Wait()
	run.tellUntold(ctx)
	return newReport("rotate", started, reports)
}
