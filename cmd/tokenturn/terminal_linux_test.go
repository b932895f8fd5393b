package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A terminal shows the question and nothing of a secret that is typed; an
// interrupt leaves it as it was, and takes nothing of what is typed next.
func TestTerminalShowsNoSecret(t *testing.T) {
	person, terminal := openTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := &cli{stdin: terminal, stderr: terminal}

	interrupted := make(chan error)
	go func() {
		_, err := c.askSecret(ctx, "Client secret")
		interrupted <- err
	}()
	person.sees("Client secret: ")
	if echoes(t, terminal) {
		t.Error("the terminal shows what is typed")
	}
	cancel()
	if err := <-interrupted; !errors.Is(err, errInterrupted) {
		t.Errorf("interrupted, it says %v", err)
	}
	if !echoes(t, terminal) {
		t.Error("the terminal stays mute after an interrupt")
	}
	person.types("for the next question\n")
	if next, err := c.readLine(t.Context()); err != nil || next != "for the next question" {
		t.Errorf("the next reader got %q, %v", next, err)
	}

	answered := make(chan string)
	go func() {
		secret, err := c.askSecret(t.Context(), "Once more")
		if err != nil {
			t.Error(err)
		}
		answered <- secret.Reveal()
	}()
	person.sees("Once more: ")
	person.types("canary-secret\n")
	if got := <-answered; got != "canary-secret" {
		t.Errorf("read %q", got)
	}
	if !echoes(t, terminal) {
		t.Error("the terminal stays mute")
	}
	terminal.Close()
	if shown := person.rest(); strings.Contains(shown, "canary") {
		t.Errorf("shown: %q", shown)
	}
}

// person is who sits at a terminal.
type person struct {
	t     *testing.T
	side  *os.File
	shown string
}

// openTerminal returns a pseudo-terminal with a person at it; see pty(7).
func openTerminal(t *testing.T) (*person, *os.File) {
	t.Helper()
	side, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		terminal.Close()
		side.Close()
	})
	return &person{t: t, side: side}, terminal
}

// sees reads until the terminal has shown text.
func (p *person) sees(text string) {
	p.t.Helper()
	p.seesAgain(text, 0)
}

// seesAgain reads until the terminal has shown text once more than so many times.
func (p *person) seesAgain(text string, times int) {
	p.t.Helper()
	for some := make([]byte, 1024); strings.Count(p.shown, text) <= times; {
		n, err := p.side.Read(some)
		if err != nil {
			p.t.Fatalf("the terminal showed %q, and then: %v", p.shown, err)
		}
		p.shown += string(some[:n])
	}
}

// seesOne reads until the terminal has shown one of several texts, and returns it.
func (p *person) seesOne(texts ...string) string {
	p.t.Helper()
	for some := make([]byte, 1024); ; {
		for _, text := range texts {
			if strings.Contains(p.shown, text) {
				return text
			}
		}
		n, err := p.side.Read(some)
		if err != nil {
			p.t.Fatalf("the terminal showed %q, and then: %v", p.shown, err)
		}
		p.shown += string(some[:n])
	}
}

func (p *person) types(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.side, text); err != nil {
		p.t.Fatal(err)
	}
}

// rest reads to the end, which is an error once the other side is closed, and
// returns everything that was shown.
func (p *person) rest() string {
	all, _ := io.ReadAll(p.side)
	p.shown += string(all)
	return p.shown
}

// echoes reports whether the terminal shows what is typed.
func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	settings, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return settings.Lflag&unix.ECHO != 0
}
