package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// maxInput bounds what is read of a person or a pipe.
const maxInput = 64 << 10

// terminal returns the file descriptor of standard input if a person types there.
func (c *cli) terminal() (fd int, ok bool) {
	f, ok := c.stdin.(*os.File)
	if !ok {
		return 0, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// ask reads a line; an empty one means the usual answer, if there is one.
func (c *cli) ask(ctx context.Context, what, usual string) (string, error) {
	if usual != "" {
		what += " [" + usual + "]"
	}
	fmt.Fprintf(c.stderr, "%s: ", what)
	line, err := interruptible(ctx, func() (string, error) { return readLine(c.stdin) })
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return usual, nil
	}
	return line, nil
}

// askSecret reads a line that a terminal does not show.
func (c *cli) askSecret(ctx context.Context, what string) (token.Secret, error) {
	fmt.Fprintf(c.stderr, "%s: ", what)
	read := func() (string, error) { return readLine(c.stdin) }
	if fd, ok := c.terminal(); ok {
		before, err := term.GetState(fd)
		if err != nil {
			return token.Secret{}, fmt.Errorf("looking at the terminal: %w", err)
		}
		defer func() { _ = term.Restore(fd, before) }() // an interrupt would leave it mute
		read = func() (string, error) {
			text, err := term.ReadPassword(fd)
			return string(text), err
		}
	}
	line, err := interruptible(ctx, read)
	fmt.Fprintln(c.stderr) // nobody has seen the end of the line
	if err != nil {
		return token.Secret{}, fmt.Errorf("reading the answer: %w", err)
	}
	return token.NewSecret(strings.TrimSpace(line)), nil
}

// interruptible lets Ctrl-C end a read that nothing else would end.
func interruptible(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		line string
		err  error
	}
	came := make(chan result, 1)
	go func() {
		line, err := read()
		came <- result{line, err}
	}()
	select {
	case r := <-came:
		return r.line, r.err
	case <-ctx.Done():
		return "", errors.New("interrupted")
	}
}

// readLine takes no more than a line from r, so that what follows it is left
// for the next question.
func readLine(r io.Reader) (string, error) {
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
			return "", errors.New("there was none: the input has ended")
		case err != nil:
			return "", err
		}
	}
	return "", errors.New("the line is too long")
}
