package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// A watch shows what has changed until Ctrl-C, and fits a narrow terminal.
func TestWatchConnections(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	s.connects("demo/acme")
	session := s.startInTerminal(exec.CommandContext(t.Context(), s.program, "connection", "list", "--watch"))
	session.sees("demo/acme")
	if err := pty.Setsize(session.side, &pty.Winsize{Rows: 20, Cols: 60}); err != nil {
		t.Fatal(err)
	}
	session.sees(clearScreen)
	if code, said := s.pipe("", "connection", "invite", "demo/second"); code != done {
		t.Fatal(said)
	}
	session.sees("demo/second")
	session.types("\x03")
	exit, shown := session.ends()
	narrow := shown[strings.LastIndex(shown, clearScreen):]
	for line := range strings.Lines(narrow) {
		if text := escapes.ReplaceAllString(strings.TrimRight(line, "\r\n"), ""); visible(text) > 60 {
			t.Errorf("%d columns: %q", visible(text), text)
		}
	}
	if exit != done || strings.Contains(narrow, "interrupted") {
		t.Errorf("exit code %d; shown:\n%s", exit, shown)
	}
}
