package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// stopSignals are those that ask the program to stop: Ctrl-C, an end of the
// system, and a terminal that is closed, unless nohup(1) has that one ignored.
func stopSignals() []os.Signal {
	if signal.Ignored(syscall.SIGHUP) {
		return []os.Signal{os.Interrupt, syscall.SIGTERM}
	}
	return []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
}

// finishingFirst is why a command that presents refresh tokens does not stop at once.
const finishingFirst = "What was begun is finished first, so that no pair is lost; this ends by itself soon."

// deferSignals is for what would lose a pair if the program ended at once. Until
// finished is called no signal to stop does that, however many come: each is
// answered with why. The program's context is cancelled by the first all the same.
func (c *cli) deferSignals(why string) (finished func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, stopSignals()...)
	var answering sync.WaitGroup
	answering.Go(func() {
		for range signals {
			c.say("%s", why)
		}
	})
	return func() {
		signal.Stop(signals)
		close(signals)
		answering.Wait()
	}
}

// uninterrupted withstands for what must not even stop half-way: the context it
// returns is not cancelled by a signal either. The deadline of ctx, and
// exchangeLimit, still hold.
func (c *cli) uninterrupted(ctx context.Context, why string) (working context.Context, finished func()) {
	withstood := c.deferSignals(why)
	working, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchangeLimit)
	stop := func() {}
	if deadline, ok := ctx.Deadline(); ok {
		working, stop = context.WithDeadline(working, deadline)
	}
	return working, func() {
		stop()
		cancel()
		withstood()
	}
}
