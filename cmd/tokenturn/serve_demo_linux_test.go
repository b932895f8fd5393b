package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// children are the processes that a process has started, by proc_pid_stat(5).
func children(t *testing.T, parent int) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		stat, err := os.ReadFile(file)
		if err != nil { // it has ended
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// hasEnded reports whether a process has ended. The process that inherits it may not have waited for
// it yet.
func hasEnded(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err != nil || strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// A demo that is killed leaves no process.
func TestWorkerEndsWithItsParent(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cmd := exec.CommandContext(t.Context(), m.program, "serve", "--demo", "--addr", "localhost:0")
	cmd.Env = append(m.environ, "TMPDIR="+m.home)
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	for lines.Scan() && !strings.Contains(lines.Text(), "Ctrl-C") {
	}
	var workers []int
	await(t, "a rotation process", func() bool {
		workers = slices.DeleteFunc(children(t, cmd.Process.Pid), func(pid int) bool { // Go starts another one for a moment
			arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			return err != nil || !strings.Contains(string(arguments), "\x00worker\x00")
		})
		return len(workers) > 0
	})
	for _, stop := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		await(t, "that it ignores signals", func() bool { return ignores(t, workers[0], stop) })
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for _, worker := range workers {
		await(t, "the end of the rotation process", func() bool { return hasEnded(worker) })
	}
}

// await waits for something outside of this process.
func await(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for end := time.Now().Add(waitLimit); !fact(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not observed: %s", what)
		}
	}
}

// `make run` says that it compiles, and starts the demo. Ctrl-C ends it without a complaint of
// make.
func TestMakeRun(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("make")
	if err != nil {
		t.Fatal("`make run` is the first thing that a newcomer does; install make: ", err)
	}
	makefile, err := filepath.Abs("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	// Instead of compiling, go puts the program there that this test is.
	stub := "#!/bin/sh\n[ \"$1\" != build ] || { mkdir -p build && ln -sf " + m.program + " build/tokenturn; }\n"
	if err := os.WriteFile(filepath.Join(m.home, "go"), []byte(stub), 0o700); err != nil {
		t.Fatal(err)
	}
	m.environ = append(m.environ, "PATH="+m.home+":/usr/bin:/bin")
	runs := func(arg string) *session {
		cmd := exec.CommandContext(t.Context(), program, "-f", makefile, "run", arg)
		cmd.Dir = m.home
		return m.startInTerminal(cmd)
	}
	s := runs("ADDR=localhost:0")
	s.sees("Compiling")
	s.sees("Press Ctrl-C")
	address := strings.Fields(s.shown[strings.Index(s.shown, "http://"):])[0]
	await(t, "the console", func() bool {
		answer, err := http.Get(address)
		if err != nil {
			return false
		}
		return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	})
	taken := runs("ADDR=" + strings.TrimPrefix(address, "http://"))
	if exit, shown := taken.ends(); exit == done || !strings.Contains(shown, "address already in use") ||
		!strings.Contains(shown, "make run ADDR=localhost:9000") {
		t.Errorf("exit code %d for a taken port:\n%s", exit, shown)
	}
	s.types("\x03")
	if _, shown := s.ends(); !strings.Contains(shown, "Stopping") || strings.Contains(shown, "make:") ||
		strings.Contains(shown, "exit status") || strings.Contains(shown, "rror") {
		t.Errorf("after Ctrl-C:\n%s", shown)
	}
}

// `serve` in a terminal says what happens in sentences.
func TestServeNarratesInATerminal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.connects("demo/acme")
	m.standIn.SetLifetime(2 * time.Second)
	s := m.start("serve", "--addr", "localhost:0", "--every", "1s")
	s.sees("Console: http://localhost:")
	m.succeeds("", "connection", "rotate", "demo/acme")
	s.sees("demo/acme: rotated: generation 1.2 is published; its access token is valid until ")
	s.types("\x03")
	if exit, shown := s.ends(); exit != done || strings.Contains(shown, "level=") || strings.Contains(shown, "msg=") {
		t.Errorf("exit code %d:\n%s", exit, shown)
	}
}

// ignores reports whether a process ignores a signal, by proc_pid_status(5).
func ignores(t *testing.T, pid int, signal syscall.Signal) bool {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if mask, found := strings.CutPrefix(line, "SigIgn:"); found {
			ignored, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && ignored&(1<<(signal-1)) != 0
		}
	}
	return false
}
