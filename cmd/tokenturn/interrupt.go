package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// stopSignals are the signals that ask the program to stop: Ctrl-C, a shutdown, and a
// closed terminal unless nohup(1) ignores that one.
func stopSignals() []os.Signal {
	if signal.Ignored(syscall.SIGHUP) {
		return []os.Signal{os.Interrupt, syscall.SIGTERM}
	}
	return []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
}

// finishingFirst says why a command that presents refresh tokens does not stop at once.
const finishingFirst = "tokenturn finishes what it has begun, so that no token pair is lost, and then stops."

// deferSignals protects work that would lose a pair if the program ended at once. Until
// finished is called, no signal ends the program: each is answered with why. The first
// one still cancels the program's context.
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

// uninterrupted is deferSignals for work that must not stop half-way: a signal does not
// cancel the context that it returns. The deadline of ctx and exchangeLimit still hold.
func (c *cli) uninterrupted(ctx context.Context, why string) (working context.Context, finished func()) {
	release := c.deferSignals(why)
	working, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchangeLimit)
	stop := func() {}
	if deadline, ok := ctx.Deadline(); ok {
		working, stop = context.WithDeadline(working, deadline)
	}
	return working, func() {
		stop()
		cancel()
		release()
	}
}
