// Package lambdaruntime runs a compiled Lambda function on this machine: it
// starts the function's bootstrap, serves it the Lambda Runtime API
// (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html) and does to
// it what Lambda may do, such as running several environments side by side,
// ending one at its deadline, and killing one in the middle of its work.
//
// It plays the part of Lambda that a function can notice, no more: an
// environment is reused only when it has asked for its next event, runs one
// event at a time, and sees nothing of this process's environment variables.
package lambdaruntime

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"
)

// Config describes a function.
type Config struct {
	Name      string            // AWS_LAMBDA_FUNCTION_NAME
	Bootstrap string            // path of the program, built for this machine
	Env       map[string]string // the function's variables, credentials included, as a deployment would set them
	Timeout   time.Duration     // of one event; the environment is killed then
	Log       io.Writer         // everything the function writes to stdout and stderr; may be nil
}

// Function is a deployed function. It is safe for concurrent use; each event
// that finds no idle environment starts another one, as in Lambda.
type Function struct {
	cfg Config

	mu     sync.Mutex
	idle   []*environment
	all    map[*environment]struct{}
	starts int
}

// New returns a function without any environment yet.
func New(cfg Config) *Function {
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	cfg.Log = &lockedWriter{w: cfg.Log}
	return &Function{cfg: cfg, all: map[*environment]struct{}{}}
}

// Failure says how an event ended without a response.
type Failure string

const (
	// Reported: the function answered with an error; Error.Payload has it.
	Reported Failure = "reported"
	// TimedOut: the environment was killed at the deadline.
	TimedOut Failure = "timed out"
	// Exited: the process ended before it answered, by itself or by Kill.
	Exited Failure = "exited"
	// NotStarted: the process did not come as far as asking for an event.
	NotStarted Failure = "not started"
)

// Error is an event that ended without a response.
type Error struct {
	Failure Failure
	Payload json.RawMessage // {"errorMessage":...,"errorType":...} if the function reported it
	Detail  string          // what else is known, for people
}

func (e *Error) Error() string {
	text := "function " + string(e.Failure)
	if len(e.Payload) > 0 {
		text += ": " + string(e.Payload)
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// FailureOf returns how err, from Invoke, says that the event ended; "" if it
// says nothing about that.
func FailureOf(err error) Failure {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Failure
	}
	return ""
}

// Invoke hands the event to an environment and returns its response, once the
// environment is done with it: it has asked for its next event or is gone. The
// error is an *Error or ctx's; if ctx ends first the environment is killed.
func (f *Function) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	e, err := f.acquire(ctx)
	if err != nil {
		return nil, err
	}
	response, err := e.invoke(ctx, event, f.cfg.Timeout)
	f.release(e)
	return response, err
}

// Kill ends every environment with SIGKILL and returns when they are gone.
// Later events start new ones. Use it at any moment, and at the end.
func (f *Function) Kill() {
	f.mu.Lock()
	f.idle = nil
	var doomed []*environment
	for e := range f.all {
		doomed = append(doomed, e)
	}
	f.mu.Unlock()
	for _, e := range doomed {
		e.kill()
		f.release(e)
	}
}

// ColdStarts is how many environments have been started so far.
func (f *Function) ColdStarts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.starts
}

// acquire takes an idle environment or starts one.
func (f *Function) acquire(ctx context.Context) (*environment, error) {
	f.mu.Lock()
	for len(f.idle) > 0 {
		e := f.idle[len(f.idle)-1]
		f.idle = f.idle[:len(f.idle)-1]
		if e.alive() {
			f.mu.Unlock()
			return e, nil
		}
		delete(f.all, e)
	}
	f.starts++
	number := f.starts
	e, err := newEnvironment(f.cfg, number)
	if err == nil {
		f.all[e] = struct{}{}
	}
	f.mu.Unlock()
	if err != nil {
		return nil, &Error{Failure: NotStarted, Detail: err.Error()}
	}
	if err := e.awaitInit(ctx); err != nil {
		e.kill()
		f.release(e)
		return nil, err
	}
	return e, nil
}

// release makes the environment idle, or forgets it if it is gone.
func (f *Function) release(e *environment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.all[e]; !known {
		return
	}
	if !e.alive() {
		delete(f.all, e)
		return
	}
	f.idle = append(f.idle, e)
}

// lockedWriter keeps the lines of several processes apart.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
