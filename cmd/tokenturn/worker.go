package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

// workerFlags are how the supervisor of `serve --demo` starts its worker.
type workerFlags struct {
	publicURL string
	clock     time.Duration
}

// workerCommand is the rotate function as a process of its own. `serve --demo` kills it, and
// shows that no token is lost.
func (c *cli) workerCommand() *cobra.Command {
	var flags workerFlags
	cmd := verb("worker", "Carry out the events of standard input",
		`Runs the rotate function on the embedded store. "tokenturn serve --demo" starts it as a
process of its own, so that the demo can kill it. It reads one JSON object per line:

  {"id":1,"event":{"op":"sweep"}}   carry out an event of the rotate function
  {"id":1,"cancel":true}            finish it soon

and writes one per line: {"ready":true} at the start, the answer or error of each event with
its id, and the follow-ups and notices that belong to no id. It ends with its input, after
the work in progress. Signals that ask it to stop have no effect.`,
		func(ctx context.Context, cmd *cobra.Command) error {
			if c.store != "embedded" {
				return usageError(cmd, errors.New("worker needs the embedded store"))
			}
			signal.Ignore(stopSignals()...) // it ends with its input
			return c.withNew(context.WithoutCancel(ctx), func(in *installation) error {
				in.publicURL, in.log = flags.publicURL, c.logger(slog.LevelWarn)
				if flags.clock != 0 {
					in.now = func() time.Time { return time.Now().Add(flags.clock) }
				}
				return newWorker(c.stdout).run(ctx, in, c.stdin)
			})
		})
	cmd.Hidden = true
	cmd.Flags().StringVar(&flags.publicURL, "public-url", "", "base URL of links in notices")
	cmd.Flags().DurationVar(&flags.clock, "clock", 0, "how far its clock is ahead")
	return c.withExamples(cmd, example{"Carry out one sweep", `echo '{"id":1,"event":{"op":"sweep"}}' | tokenturn worker`})
}

// toWorker is a line that a worker reads.
type toWorker struct {
	ID     int64           `json:"id"`
	Event  json.RawMessage `json:"event,omitempty"`
	Cancel bool            `json:"cancel,omitempty"` // of the event with this ID: finish soon
}

// fromWorker is a line that a worker writes. ID belongs to Answer and Error.
type fromWorker struct {
	Ready  bool            `json:"ready,omitempty"`
	ID     int64           `json:"id,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
	Error  string          `json:"error,omitempty"`

	FollowUp *rotation.Request `json:"follow_up,omitempty"`
	DelayMS  int64             `json:"delay_ms,omitempty"` // of FollowUp
	Notice   *rotation.Notice  `json:"notice,omitempty"`
	Link     string            `json:"link,omitempty"` // of Notice
}

// worker carries out events side by side.
type worker struct {
	mu  sync.Mutex // guards all below
	out io.Writer
	// cancels has the running events.
	cancels map[int64]context.CancelFunc
}

var (
	_ rotation.FollowUps = (*worker)(nil)
	_ rotation.Notifier  = (*worker)(nil)
)

func newWorker(out io.Writer) *worker {
	return &worker{out: out, cancels: map[int64]context.CancelFunc{}}
}

// run carries out the events of input until it ends. Then it finishes those in progress.
func (w *worker) run(ctx context.Context, in *installation, input io.Reader) error {
	in.followUps, in.notifier = w, w
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	// The process at the other end logs each request; this one logs what the engine does.
	handler := trigger.Handler{Engine: rotator, Log: slog.New(slog.DiscardHandler)}
	if err := w.write(fromWorker{Ready: true}); err != nil {
		return err
	}
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var underWay sync.WaitGroup
	err = w.read(input, func(line toWorker) {
		one, end := context.WithCancel(working)
		w.mu.Lock()
		w.cancels[line.ID] = end
		w.mu.Unlock()
		underWay.Go(func() {
			defer end()
			answer, err := handler.Invoke(one, line.Event)
			w.ended(line.ID, answer, err)
		})
	})
	defer time.AfterFunc(grace, cancel).Stop()
	underWay.Wait()
	return err
}

// read calls begin with each event.
func (w *worker) read(input io.Reader, begin func(toWorker)) error {
	lines := bufio.NewReader(input)
	for {
		text, err := lines.ReadBytes('\n')
		if text = bytes.TrimSpace(text); len(text) > 0 {
			var line toWorker
			if unread := json.Unmarshal(text, &line); unread != nil || line.ID <= 0 {
				return fmt.Errorf("reading standard input: a line is not a JSON object with an id above zero: %w", unread)
			}
			if line.Cancel {
				w.cancel(line.ID)
			} else {
				begin(line)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading standard input: %w", err)
		}
	}
}

func (w *worker) cancel(id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if end := w.cancels[id]; end != nil {
		end()
	}
}

// ended writes the answer to an event.
func (w *worker) ended(id int64, answer []byte, err error) {
	w.mu.Lock()
	delete(w.cancels, id)
	w.mu.Unlock()
	line := fromWorker{ID: id, Answer: answer}
	if err != nil {
		line.Error = err.Error()
	}
	_ = w.write(line) // if that fails, the reader is gone, and the work is done all the same
}

// Send implements rotation.FollowUps.
func (w *worker) Send(_ context.Context, request rotation.Request, delay time.Duration) error {
	return w.write(fromWorker{FollowUp: &request, DelayMS: delay.Milliseconds()})
}

// Notify implements rotation.Notifier.
func (w *worker) Notify(_ context.Context, n rotation.Notice) error {
	return w.write(fromWorker{Notice: &n, Link: n.Link.Reveal()})
}

// write writes one line.
func (w *worker) write(line fromWorker) error {
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("encoding a line: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.out.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("writing a line: %w", err)
	}
	return nil
}

// notice is the notice of a line.
func (line fromWorker) notice() rotation.Notice {
	n := *line.Notice
	n.Link = token.NewSecret(line.Link)
	return n
}
