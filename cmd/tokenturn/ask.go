package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/console"
	"github.com/muesli/cancelreader"
	"golang.org/x/term"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// maxInput bounds what is read from a terminal or a pipe.
const maxInput = 64 << 10

// The reasons for which a question has no answer.
var (
	errInterrupted = errors.New("interrupted")
	errInputEnded  = errors.New("the input has ended")
)

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ask reads a line. An empty line means the usual answer, if there is one.
func (c *cli) ask(ctx context.Context, what, usual string) (string, error) {
	if usual != "" {
		what += " [" + usual + "]"
	}
	fmt.Fprintf(c.stderr, "%s: ", what)
	line, err := c.readLine(ctx)
	if err != nil {
		fmt.Fprintln(c.stderr) // the next message begins on its own line
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return usual, nil
	}
	return line, nil
}

// askSecret reads a line that a terminal does not show. The echo is off before the
// question appears and on again when askSecret returns, however it ends. A pipe or a file
// is asked nothing.
func (c *cli) askSecret(ctx context.Context, what string) (token.Secret, error) {
	restore, err := c.hideInput()
	if err != nil {
		return token.Secret{}, err
	}
	defer restore()
	asks := isTerminal(c.stdin)
	if asks {
		fmt.Fprintf(c.stderr, "%s: ", what)
	}
	line, err := c.readLine(ctx)
	if asks {
		fmt.Fprintln(c.stderr) // the line break that was typed is not shown
	}
	if err != nil {
		return token.Secret{}, fmt.Errorf("reading the answer: %w", err)
	}
	return token.NewSecret(strings.TrimSpace(line)), nil
}

// readSecrets lets read have all of standard input, which contains secrets. A terminal
// does not show them.
func (c *cli) readSecrets(ctx context.Context, what string, read func(io.Reader) error) error {
	restore, err := c.hideInput()
	if err != nil {
		return err
	}
	defer restore()
	if isTerminal(c.stdin) {
		c.say("Paste %s, then press Ctrl-D. The input is not shown.", what)
	}
	return c.reading(ctx, read)
}

// knownFields reports whether a JSON object has only fields of T. Another one is usually
// a misspelled name.
func knownFields[T any](object []byte, of T) bool {
	d := json.NewDecoder(bytes.NewReader(object))
	d.DisallowUnknownFields()
	return d.Decode(&of) == nil
}

// hideInput turns off the echo of a terminal. It does nothing if standard input is not a
// terminal.
func (c *cli) hideInput() (restore func(), err error) {
	if !isTerminal(c.stdin) {
		return func() {}, nil
	}
	terminal, err := console.ConsoleFromFile(c.stdin.(*os.File))
	if err == nil {
		err = terminal.DisableEcho()
	}
	if err != nil {
		return nil, fmt.Errorf("turning off the echo of the terminal: %w", err)
	}
	return func() { _ = terminal.Reset() }, nil
}

// readLine reads one line from standard input.
func (c *cli) readLine(ctx context.Context) (line string, err error) {
	err = c.reading(ctx, func(input io.Reader) (err error) {
		line, err = lineOf(input)
		return err
	})
	return line, err
}

// reading lets read have standard input until ctx is cancelled, which is errInterrupted.
// It leaves no reader behind that would take the answer to the next question.
func (c *cli) reading(ctx context.Context, read func(io.Reader) error) error {
	input, err := cancelreader.NewReader(c.stdin)
	if err != nil { // a file: reading it never blocks
		return read(c.stdin)
	}
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		input.Cancel()
		close(cancelled)
	})
	err = read(input)
	if !stop() {
		<-cancelled
	}
	_ = input.Close()
	if errors.Is(err, cancelreader.ErrCanceled) {
		err = errInterrupted
	}
	return err
}

// lineOf reads no more than one line from r: what follows answers the next question.
func lineOf(r io.Reader) (string, error) {
	var line []byte
	for one := make([]byte, 1); len(line) < maxInput; {
		n, err := r.Read(one)
		switch {
		case n > 0 && one[0] == '\n':
			return string(line), nil
		case n > 0:
			line = append(line, one[0])
		case errors.Is(err, io.EOF) && len(line) > 0:
			return string(line), nil
		case errors.Is(err, io.EOF):
			return "", errInputEnded
		case err != nil:
			return "", err
		}
	}
	return "", errors.New("the line is too long")
}

// unanswered adds the consequence to the error of a question without an answer. The end
// of the input is wrong usage; an interrupt is what the person wanted.
func unanswered(err error, consequence string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errInputEnded):
		return exitf(usage, "%w; %s", err, consequence)
	}
	return fmt.Errorf("%w; %s", err, consequence)
}

// confirm makes the person type the name of what a command is about to end.
func (c *cli) confirm(ctx context.Context, name string, yes bool, question string) error {
	if yes {
		return nil
	}
	if where := c.installationName(); where != "" {
		c.say("Installation: %s", where)
	}
	typed, err := c.ask(ctx, question, "")
	if err != nil {
		return unanswered(err, "nothing was changed; to skip the question, add --yes")
	}
	if typed != name {
		return exitf(usage, "that is not %s; nothing was changed", name)
	}
	return nil
}
