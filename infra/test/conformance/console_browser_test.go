//go:build conformance

package conformance

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
)

// A real Chromium uses the console of the demo: it connects, breaks everything that the
// panel offers, and sees each recovery without loading the page again.
func TestConsoleInABrowser(t *testing.T) {
	t.Parallel()
	port, emptyPort := freePort(t), freePort(t)
	demo := serving(t, "serve", "--demo", "--data", t.TempDir(), "--addr", "localhost:"+port, "--every", "5s")
	console, link := regexp.MustCompile(`Console:? +(http://\S+)`), regexp.MustCompile(`Consent link +(http://\S+)`)
	demo.says(t, link)
	empty := serving(t, "serve", "--data", t.TempDir(), "--addr", "localhost:"+emptyPort)
	empty.says(t, console)
	world := map[string]any{"kind": "stand-in", "publicURL": demo.says(t, console), "consentLink": demo.says(t, link),
		"emptyURL": empty.says(t, console), "screens": screens(t, "console"), "login": procoretest.DefaultUser().Login,
		"password": procoretest.DefaultUser().Password}
	encoded, err := json.Marshal(world)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../browser/run", "console.mjs")
	cmd.Env = append(os.Environ(), "WORLD="+string(encoded))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\nthe demo wrote:\n%s", err, out, demo.out.tail(4000))
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "✔") || strings.HasPrefix(line, "ℹ pass") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// server is a running tokenturn command.
type server struct{ out *lockedBuffer }

// serving runs the command until the test ends.
func serving(t *testing.T, arguments ...string) *server {
	t.Helper()
	s := &server{&lockedBuffer{}}
	cmd := exec.Command(built(t, buildCommand), arguments...)
	cmd.Stdout, cmd.Stderr = s.out, s.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		if err := <-exited; err != nil {
			t.Errorf("tokenturn %q: %v\n%s", arguments, err, s.out.tail(2000))
		}
	})
	return s
}

// says waits until the command has written a text of that form, and returns its first group.
func (s *server) says(t *testing.T, form *regexp.Regexp) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if found := form.FindStringSubmatch(s.out.String()); found != nil {
			return found[1]
		}
		if time.Now().After(deadline) {
			t.Fatalf("the command did not write %s, but:\n%s", form, s.out.tail(2000))
		}
	}
}
