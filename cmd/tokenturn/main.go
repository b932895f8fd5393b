// Command tokenturn is the operator CLI. `tokenturn serve` runs the whole system in one
// process on one machine. Results go to standard output, messages to standard error.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// If the reader of the output is gone, writes fail and the program goes on: it may hold
	// a pair that is not saved yet. SIGPIPE is caught, not ignored, because the program that
	// `token exec` runs would inherit an ignored signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once, unless deferSignals holds it off
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
