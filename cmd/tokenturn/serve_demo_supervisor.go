package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

// supervisor is an engine that works in a process of its own. It starts the process again
// when that ends unexpectedly.
type supervisor struct {
	command   func(clock time.Duration) *exec.Cmd // that starts `tokenturn worker`
	followUps rotation.FollowUps
	notifier  rotation.Notifier
	log       *slog.Logger
	closing   chan struct{} // closed by close
	ended     chan struct{} // closed after that, once the last process has ended

	mu      sync.Mutex    // guards all below
	current *process      // that takes requests; nil: it is being started
	changed chan struct{} // closed when current changes
	clock   time.Duration // of the next process
	lastID  int64
}

var _ trigger.Engine = (*supervisor)(nil)

// newSupervisor starts the first process. An error means that none can be started. Close
// the supervisor.
func newSupervisor(command func(clock time.Duration) *exec.Cmd, followUps rotation.FollowUps,
	notifier rotation.Notifier, log *slog.Logger) (*supervisor, error) {
	s := &supervisor{command: command, followUps: followUps, notifier: notifier, log: log,
		closing: make(chan struct{}), ended: make(chan struct{}), changed: make(chan struct{})}
	first, err := s.start()
	if err != nil {
		return nil, err
	}
	s.current = first // so that the first request finds it
	go s.supervise(first)
	return s, nil
}

// The waits before a process is started again that ended, or did not start, at once. They
// double; a process that lives for longestRestartWait ends the series.
const (
	firstRestartWait   = 50 * time.Millisecond
	longestRestartWait = time.Second
)

// supervise keeps one process running until close.
func (s *supervisor) supervise(p *process) {
	defer close(s.ended)
	wait := time.Duration(0)
	for {
		began := time.Now()
		if p != nil {
			s.set(p)
			select {
			case <-p.ended:
			case <-s.closing:
				p.stop()
				<-p.ended
			}
			s.set(nil)
			if !p.isStopped() {
				s.log.Warn("the rotation process ended; it is started again", "pid", p.pid(), "ended", p.state.String())
			}
		}
		switch {
		case p != nil && p.isStopped() || time.Since(began) >= longestRestartWait:
			wait = 0
		default:
			wait = min(max(firstRestartWait, 2*wait), longestRestartWait)
		}
		select {
		case <-s.closing:
			return
		case <-time.After(wait - time.Since(began)):
		}
		var err error
		if p, err = s.start(); err != nil {
			s.log.Error("the rotation process does not start; it is tried again", "error", err)
		}
	}
}

func (s *supervisor) set(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = p
	close(s.changed)
	s.changed = make(chan struct{})
}

// running returns the process that takes requests, or nil, and a channel that is closed
// when that changes.
func (s *supervisor) running() (*process, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.changed
}

var (
	errNoWorker    = errors.New("the rotation process does not run")
	errWorkerEnded = errors.New("the rotation process ended before it answered")
)

// startLimit is how long a request waits for a process that is being started.
const startLimit = 30 * time.Second

// Do implements trigger.Engine. An error says that the process ended, or that the engine
// could not do anything; what had begun is recovered by a later request.
func (s *supervisor) Do(ctx context.Context, request rotation.Request) (rotation.Report, error) {
	event, err := json.Marshal(request)
	if err != nil {
		return rotation.Report{}, fmt.Errorf("encoding a request: %w", err)
	}
	limit, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		p, changed := s.running()
		if p != nil {
			s.mu.Lock()
			s.lastID++
			id := s.lastID
			s.mu.Unlock()
			return p.do(ctx, id, event)
		}
		select {
		case <-changed:
		case <-s.ended:
			return rotation.Report{}, errNoWorker
		case <-limit.Done():
			return rotation.Report{}, errNoWorker
		}
	}
}

// kill ends the process as a crash or the kernel would (SIGKILL), and waits for its end. nil:
// none runs.
func (s *supervisor) kill() *process {
	p, _ := s.running()
	if p != nil {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	return p
}

// restart lets the process finish what it has begun, and starts one with another clock.
func (s *supervisor) restart(ctx context.Context, clock time.Duration) error {
	s.mu.Lock()
	s.clock = clock
	old := s.current
	s.mu.Unlock()
	for {
		p, changed := s.running()
		switch {
		case p == nil:
		case p == old || p.clock != s.wantedClock(): // one that was being started may have the clock before
			p.stop()
		case p.clock == clock:
			return nil
		}
		select {
		case <-changed:
		case <-s.ended:
			return errNoWorker
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *supervisor) wantedClock() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock
}

// close lets the process finish what it has begun, and waits for its end.
func (s *supervisor) close() {
	close(s.closing)
	<-s.ended
}

// process is one run of `tokenturn worker`.
type process struct {
	cmd   *exec.Cmd
	clock time.Duration
	ended chan struct{}    // closed when the process has ended
	state *os.ProcessState // once ended

	mu      sync.Mutex // guards all below
	input   io.WriteCloser
	stopped bool // asked to stop
	answers map[int64]chan fromWorker
}

// start starts a process and waits until it takes requests.
func (s *supervisor) start() (*process, error) {
	s.mu.Lock()
	clock := s.clock
	s.mu.Unlock()
	p := &process{cmd: s.command(clock), clock: clock, ended: make(chan struct{}), answers: map[int64]chan fromWorker{}}
	input, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the rotation process: %w", err)
	}
	p.input = input
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the rotation process: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the rotation process: %w", err)
	}
	ready := make(chan struct{})
	go p.read(output, s, ready)
	select {
	case <-ready:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("the rotation process ended at its start (%v)", p.state)
	}
}

// read takes the lines of the process until it ends.
func (p *process) read(output io.Reader, s *supervisor, ready chan<- struct{}) {
	defer close(p.ended)
	lines := bufio.NewReader(output)
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			break // a line without an end is of a process that was killed while it wrote
		}
		var line fromWorker
		if err := json.Unmarshal(text, &line); err != nil {
			s.log.Error("the rotation process wrote a line that is not JSON", "error", err)
			continue
		}
		p.received(line, s, ready)
	}
	_ = p.stopInput()
	_ = p.cmd.Wait()
	p.state = p.cmd.ProcessState
}

func (p *process) received(line fromWorker, s *supervisor, ready chan<- struct{}) {
	switch {
	case line.Ready:
		close(ready)
	case line.FollowUp != nil:
		delay := time.Duration(line.DelayMS) * time.Millisecond
		if err := s.followUps.Send(context.Background(), *line.FollowUp, delay); err != nil {
			s.log.Warn("follow-up not sent", "op", line.FollowUp.Op, "error", err)
		}
	case line.Notice != nil:
		if err := s.notifier.Notify(context.Background(), line.notice()); err != nil {
			s.log.Error("notice not delivered", "kind", line.Notice.Kind, "error", err)
		}
	default:
		p.mu.Lock()
		defer p.mu.Unlock()
		if answer := p.answers[line.ID]; answer != nil {
			answer <- line // it has room for one, and there is one
			delete(p.answers, line.ID)
		}
	}
}

// do sends one event and waits for its answer. If ctx is canceled, it asks the process to
// finish soon, and still waits.
func (p *process) do(ctx context.Context, id int64, event []byte) (rotation.Report, error) {
	answer := make(chan fromWorker, 1)
	p.mu.Lock()
	p.answers[id] = answer
	p.mu.Unlock()
	if err := p.send(toWorker{ID: id, Event: event}); err != nil {
		return rotation.Report{}, errors.Join(errWorkerEnded, err)
	}
	canceled := ctx.Done()
	for {
		select {
		case line := <-answer:
			return line.report()
		case <-p.ended:
			select {
			case line := <-answer: // its last words
				return line.report()
			default:
				return rotation.Report{}, errWorkerEnded
			}
		case <-canceled:
			canceled = nil
			_ = p.send(toWorker{ID: id, Cancel: true}) // if that fails, the process is ending
		}
	}
}

func (line fromWorker) report() (report rotation.Report, err error) {
	if line.Error != "" {
		return report, errors.New(line.Error)
	}
	if err := json.Unmarshal(line.Answer, &report); err != nil {
		return report, fmt.Errorf("reading the answer of the rotation process: %w", err)
	}
	return report, nil
}

func (p *process) send(line toWorker) error {
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("encoding a line: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err = p.input.Write(append(text, '\n'))
	return err
}

// stop ends the input of the process. It finishes what it has begun, and ends.
func (p *process) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	_ = p.stopInput() // closed already: it is ending
}

func (p *process) stopInput() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.input.Close()
}

func (p *process) isStopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

func (p *process) pid() int { return p.cmd.Process.Pid }
