package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// seeThrough is for what must not stop half-way. The context it returns is not
// cancelled by an interrupt, and until finished is called no interrupt ends the
// program, however many come: each is answered with why. The deadline of ctx, and
// exchangeTakes, still hold.
func (c *cli) seeThrough(ctx context.Context, why string) (working context.Context, finished func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	var answering sync.WaitGroup
	answering.Go(func() {
		for range signals {
			c.say("%s", why)
		}
	})
	working, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchangeTakes)
	stop := func() {}
	if deadline, ok := ctx.Deadline(); ok {
		working, stop = context.WithDeadline(working, deadline)
	}
	return working, func() {
		stop()
		cancel()
		signal.Stop(signals)
		close(signals)
		answering.Wait()
	}
}
