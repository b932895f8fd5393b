package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A batch that was interrupted is finished by the same command. No token is presented twice,
// whether the command could end by itself or was killed.
func TestInterruptedBatchIsResumed(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	s.environ = append(s.environ, "TOKENTURN_CONCURRENCY=1")
	lines := s.importLine("demo/a") + s.importLine("demo/b") + s.importLine("demo/c")
	begin := func(how os.Signal, lines string) (int, string) {
		arrived, release := s.holdAnswer()
		cmd := exec.CommandContext(t.Context(), s.program, "connection", "import", "--batch")
		var said strings.Builder
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = s.environ, strings.NewReader(lines), &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		arrived()
		if err := cmd.Process.Signal(how); err != nil {
			t.Fatal(err)
		}
		if how == os.Kill {
			_ = cmd.Wait()
		}
		release()
		_ = cmd.Wait()
		return cmd.ProcessState.ExitCode(), said.String()
	}
	if exit, said := begin(os.Interrupt, lines); exit != tryLater || !strings.Contains(said, "1 rotated, 2 deferred") &&
		!strings.Contains(said, "2 deferred, 1 rotated") || !strings.Contains(said, "Run the same command again") {
		t.Fatalf("interrupted: exit code %d; said:\n%s", exit, said)
	}
	for _, want := range []string{"1 fresh, 2 rotated", "3 fresh"} {
		if exit, said := s.pipe(lines, "connection", "import", "--batch"); exit != done || !strings.Contains(said, want) {
			t.Errorf("again: exit code %d, want %q; said:\n%s", exit, want, said)
		}
	}

	killed := s.importLine("demo/d")
	begin(os.Kill, killed)
	presented := len(s.standIn.Presentations())
	if exit, said := s.pipe(lines+killed, "connection", "import", "--batch"); exit != tryLater ||
		!strings.Contains(said, "another process began to refresh demo/d at") {
		t.Errorf("after a kill: exit code %d; said:\n%s", exit, said)
	}
	if now := len(s.standIn.Presentations()); now != presented {
		t.Errorf("%d tokens were presented again", now-presented)
	}
	if exit, said := s.pipe(s.importLine("demo/a"), "connection", "import", "--batch"); exit != usage ||
		!strings.Contains(said, "demo/a has, or had, its own consent") {
		t.Errorf("another token of a name: exit code %d; said:\n%s", exit, said)
	}
}
