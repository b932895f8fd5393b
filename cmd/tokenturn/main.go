// Command tokenturn is the operator's command, and the whole system in one
// process on one machine (`tokenturn serve`). Answers go to standard output,
// talk to standard error.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// Where the reader of the output has gone, writing fails and the program goes on: it
	// may have a pair in hand. Not ignored, because `token exec` would pass that on.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once, unless it withstands
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
