package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// What a person types as client secret or code does not appear on the terminal,
// and an interrupt leaves the terminal as it was.
func TestTerminalShowsNoSecret(t *testing.T) {
	for name, interrupt := range map[string]bool{"typed": false, "interrupted": true} {
		t.Run(name, func(t *testing.T) {
			master, terminal := openTerminal(t)
			shown := make(chan string)
			go func() {
				all, _ := io.ReadAll(master) // ends with an error when the other side is closed
				shown <- string(all)
			}()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var said bytes.Buffer
			c := &cli{stdin: terminal, stderr: &said}
			var typing sync.WaitGroup
			typing.Go(func() {
				for echoes(t, terminal) {
					runtime.Gosched()
				}
				if interrupt {
					cancel()
					return
				}
				_, _ = io.WriteString(master, "canary-secret\n")
			})
			secret, err := c.askSecret(ctx, "Client secret")
			typing.Wait()
			if (err != nil) != interrupt || !interrupt && secret.Reveal() != "canary-secret" {
				t.Errorf("read something else: %v", err)
			}
			if !echoes(t, terminal) {
				t.Error("the terminal stays mute")
			}
			if interrupt {
				_, _ = io.WriteString(master, "\n") // lets the abandoned read end
			}
			terminal.Close()
			if all := <-shown + said.String(); strings.Contains(all, "canary") || !strings.Contains(all, "Client secret: ") {
				t.Errorf("shown: %q", all)
			}
		})
	}
}

// openTerminal returns both sides of a pseudo-terminal; see pty(7).
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}

// echoes reports whether the terminal shows what is typed.
func echoes(t *testing.T, terminal *os.File) bool {
	settings, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Error(err)
		return false
	}
	return settings.Lflag&unix.ECHO != 0
}
