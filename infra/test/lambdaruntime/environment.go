package lambdaruntime

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
)

// initTimeout is generous: Lambda allows 10 s, on a machine of its own.
const initTimeout = 30 * time.Second

// environment is one process of a function and the Runtime API that only it
// talks to.
type environment struct {
	arn    string
	cmd    *exec.Cmd
	server *http.Server
	tail   tail

	ready     chan struct{}    // has an element while the process waits for its next event
	work      chan *invocation // taken by the process's request for the next event
	initError chan []byte      // what the process reported instead of becoming ready
	exited    chan struct{}    // closed when the process is gone
	exit      error            // how it ended; read after exited

	mu      sync.Mutex
	current *invocation
}

// invocation is one event on its way.
type invocation struct {
	id       string
	event    []byte
	deadline time.Time
	answer   chan answer // buffered: the first answer counts
}

type answer struct {
	body   []byte
	failed bool
}

// newEnvironment starts the process. It is not yet ready.
//
// The process is not tied to this one by PR_SET_PDEATHSIG: that follows the
// operating system's thread which started it, and Go ends threads at will. When
// this process dies the Runtime API dies with it, and the function's request
// for its next event fails, which ends it.
func newEnvironment(cfg Config, number int) (*environment, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &environment{
		arn:       "arn:aws:lambda:us-east-1:123456789012:function:" + cfg.Name,
		ready:     make(chan struct{}, 1),
		work:      make(chan *invocation),
		initError: make(chan []byte, 1),
		exited:    make(chan struct{}),
	}
	e.server = &http.Server{Handler: e.api()}
	e.cmd = exec.Command(cfg.Bootstrap)
	e.cmd.Dir = filepath.Dir(cfg.Bootstrap)
	e.cmd.Env = variables(cfg, fmt.Sprintf("%s-%d", cfg.Name, number), listener.Addr().String())
	output := io.MultiWriter(cfg.Log, &e.tail)
	e.cmd.Stdout, e.cmd.Stderr = output, output
	if err := e.cmd.Start(); err != nil {
		_ = listener.Close()
		return nil, err
	}
	go func() { _ = e.server.Serve(listener) }()
	go func() {
		e.exit = e.cmd.Wait()
		close(e.exited)
		_ = e.server.Close()
	}()
	return e, nil
}

// variables is the environment of the process: what Lambda sets
// (https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html) and
// what the function's configuration adds or overrides.
func variables(cfg Config, stream, api string) []string {
	all := map[string]string{
		"_HANDLER":                        "bootstrap",
		"AWS_DEFAULT_REGION":              "us-east-1",
		"AWS_EXECUTION_ENV":               "AWS_Lambda_provided.al2023",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
		"AWS_LAMBDA_FUNCTION_NAME":        cfg.Name,
		"AWS_LAMBDA_FUNCTION_VERSION":     "$LATEST",
		"AWS_LAMBDA_INITIALIZATION_TYPE":  "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME":       "/aws/lambda/" + cfg.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME":      stream,
		"AWS_REGION":                      "us-east-1",
		"LAMBDA_TASK_ROOT":                filepath.Dir(cfg.Bootstrap),
		"LANG":                            "en_US.UTF-8",
		"PATH":                            "/usr/local/bin:/usr/bin:/bin",
		"TZ":                              ":UTC",
	}
	for name, value := range cfg.Env {
		all[name] = value
	}
	all["AWS_LAMBDA_RUNTIME_API"] = api
	var list []string
	for name, value := range all {
		list = append(list, name+"="+value)
	}
	return list
}

// api is the Runtime API of this environment.
func (e *environment) api() http.Handler {
	const prefix = "/2018-06-01/runtime/"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+prefix+"invocation/next", e.next)
	mux.HandleFunc("POST "+prefix+"invocation/{id}/response", func(w http.ResponseWriter, r *http.Request) {
		e.answered(w,
			r, false)
	})
	mux.HandleFunc("POST "+prefix+"invocation/{id}/error", func(w http.ResponseWriter, r *http.Request) {
		e.answered(w, r,
			true)
	})
	mux.HandleFunc("POST "+prefix+"init/error", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		select {
		case e.initError <- body:
		default:
		}
		w.WriteHeader(http.StatusAccepted)
	})
	return mux
}

// next blocks until there is an event. The request itself is what makes the
// environment idle: a function that answered may still be at work, or exiting.
func (e *environment) next(w http.ResponseWriter, r *http.Request) {
	select {
	case e.ready <- struct{}{}:
	default:
	}
	select {
	case in := <-e.work:
		e.mu.Lock()
		e.current = in
		e.mu.Unlock()
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Lambda-Runtime-Aws-Request-Id", in.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(in.deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", e.arn)
		h.Set("Lambda-Runtime-Trace-Id", "Root=1-00000000-"+fmt.Sprintf("%024x", in.deadline.UnixNano()))
		_, _ = w.Write(in.event)
	case <-r.Context().Done():
	case <-e.exited:
	}
}

// answered takes the response or the error of the current event.
func (e *environment) answered(w http.ResponseWriter, r *http.Request, failed bool) {
	body, err := io.ReadAll(r.Body)
	e.mu.Lock()
	in := e.current
	e.mu.Unlock()
	if err != nil || in == nil || in.id != r.PathValue("id") {
		http.Error(w, `{"errorMessage":"not the current request id","errorType":"InvalidRequestID"}`, http.StatusBadRequest)
		return
	}
	select {
	case in.answer <- answer{body, failed}:
		w.WriteHeader(http.StatusAccepted)
	default:
		http.Error(w, `{"errorMessage":"answered already","errorType":"InvalidStateTransition"}`, http.StatusForbidden)
	}
}

// awaitInit waits until the process asks for its first event, and leaves it
// marked as ready.
func (e *environment) awaitInit(ctx context.Context) error {
	timer := time.NewTimer(initTimeout)
	defer timer.Stop()
	select {
	case <-e.ready:
		e.ready <- struct{}{}
		return nil
	case body := <-e.initError:
		return &Error{Failure: NotStarted, Payload: body}
	case <-e.exited:
		select {
		case body := <-e.initError:
			return &Error{Failure: NotStarted, Payload: body}
		default:
			return &Error{Failure: NotStarted, Detail: e.ending()}
		}
	case <-timer.C:
		return &Error{Failure: NotStarted, Detail: fmt.Sprintf("did not ask for an event within %v", initTimeout)}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// invoke runs one event on an environment that is ready, and leaves it ready
// or gone.
func (e *environment) invoke(ctx context.Context, event []byte, timeout time.Duration) ([]byte, error) {
	in := &invocation{id: uuid.NewString(), event: event, deadline: time.Now().Add(timeout), answer: make(chan answer, 1)}
	timer := time.NewTimer(timeout)
	defer timer.Stop()

	<-e.ready
	select {
	case e.work <- in:
	case <-e.exited:
		return nil, &Error{Failure: Exited, Detail: e.ending()}
	case <-ctx.Done():
		e.kill()
		return nil, ctx.Err()
	}

	var ended error
	select {
	case <-e.ready:
		e.ready <- struct{}{}
		ended = &Error{Failure: Exited, Detail: "it asked for its next event without answering this one"}
	case <-e.exited:
		ended = &Error{Failure: Exited, Detail: e.ending()}
	case <-timer.C:
		e.kill()
		ended = &Error{Failure: TimedOut, Detail: fmt.Sprintf("after %v", timeout)}
	case <-ctx.Done():
		e.kill()
		ended = ctx.Err()
	}
	select {
	case a := <-in.answer:
		if a.failed {
			return nil, &Error{Failure: Reported, Payload: a.body}
		}
		return a.body, nil
	default:
		return nil, ended
	}
}

func (e *environment) alive() bool {
	select {
	case <-e.exited:
		return false
	default:
		return true
	}
}

func (e *environment) kill() {
	_ = e.cmd.Process.Kill()
	<-e.exited
}

// ending says how the process ended and what it wrote last.
func (e *environment) ending() string {
	return fmt.Sprintf("%v; its last output: %s", e.exit, e.tail.String())
}

// tail keeps the end of what was written to it.
type tail struct {
	mu  sync.Mutex
	end []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const limit = 2048
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, p...)
	if len(t.end) > limit {
		t.end = t.end[len(t.end)-limit:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.end))
}
