package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// holdAnswer makes the stand-in keep its next answer to itself, with its credential
// spent, until release is called. arrived waits for the request.
func (s *machine) holdAnswer() (arrived, release func()) {
	asked, released := make(chan struct{}), make(chan struct{})
	s.standIn.Script(procoretest.Rewritten(func(sound string) string {
		close(asked)
		<-released
		return sound
	}))
	release = sync.OnceFunc(func() { close(released) })
	s.t.Cleanup(release)
	arrived = func() {
		s.t.Helper()
		select {
		case <-asked:
		case <-time.After(waitLimit):
			s.t.Fatal("nothing is presented")
		}
	}
	return arrived, release
}

// Whatever presents a refresh token keeps the answer, however often and in
// whatever way the person tries to stop it.
func TestStoppedWhileATokenIsPresented(t *testing.T) {
	t.Parallel()
	const why = "tokenturn finishes what it has begun, so that no token pair is lost"
	for name, args := range map[string]string{
		"rotate":       "connection rotate demo/acme",
		"rotate --all": "connection rotate --all",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newMachine(t)
			s.connects("demo/acme")
			arrived, release := s.holdAnswer()
			session := s.start(strings.Fields(args)...)
			arrived()
			for n := range 2 {
				session.types("\x03")
				session.seesAgain(why, n)
			}
			release()
			session.rest()
			_ = session.cmd.Wait()
			s.showsGeneration("1.1")
		})
		t.Run(name+", terminal closed", func(t *testing.T) {
			t.Parallel()
			s := newMachine(t)
			s.connects("demo/acme")
			arrived, release := s.holdAnswer()
			session := s.start(strings.Fields(args)...)
			arrived()
			session.side.Close() // which tells the program so by a hang-up
			_ = session.cmd.Process.Signal(syscall.SIGHUP)
			release()
			_ = session.cmd.Wait()
			s.showsGeneration("1.1")
		})
	}
}

// A terminal that is closed, and a reader of the output that has gone, end no
// exchange.
func TestNobodyListensDuringTheExchange(t *testing.T) {
	t.Parallel()
	t.Run("terminal closed", func(t *testing.T) {
		t.Parallel()
		s := newMachine(t)
		session := s.start("connection", "authorize", "demo/acme")
		code := s.allow(session.person, codeQuestion)
		arrived, release := s.holdAnswer()
		session.types(code.Reveal() + "\n")
		arrived()
		session.side.Close()
		release()
		_ = session.cmd.Wait()
		s.showsGeneration("1.0")
	})
	t.Run("broken pipe", func(t *testing.T) {
		t.Parallel()
		s := newMachine(t)
		cmd := exec.CommandContext(t.Context(), s.program, "connection", "authorize", "demo/acme")
		output, theirs, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env, cmd.Stdout, cmd.Stderr = s.environ, theirs, theirs
		input, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		code := s.codeAt(output)
		arrived, release := s.holdAnswer()
		if _, err := io.WriteString(input, code.Reveal()+"\n"); err != nil {
			t.Fatal(err)
		}
		arrived()
		output.Close() // as `| tee log` does on Ctrl-C
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		release()
		_ = cmd.Wait()
		s.showsGeneration("1.0")
	})
}

// codeAt consents at the address that a command says, and returns the code.
func (s *machine) codeAt(said io.Reader) token.Secret {
	s.t.Helper()
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if address := authorizeAddress.FindString(lines.Text()); address != "" {
			shown, err := s.standIn.Consent(address, procoretest.DefaultUser().Login, true)
			if err != nil {
				s.t.Fatal(err)
			}
			return token.NewSecret(shown[strings.LastIndexAny(shown, "=/")+1:])
		}
	}
	s.t.Fatal("no address was said")
	return token.Secret{}
}

// showsGeneration wants demo/acme to be active with this epoch and generation.
func (s *machine) showsGeneration(want string) {
	s.t.Helper()
	code, shown := s.pipe("", "connection", "show", "demo/acme")
	if words := strings.Join(strings.Fields(shown), " "); code != done || !strings.Contains(words,
		"status active generation "+want+" ") {
		s.t.Errorf("exit code %d; want generation %s, active; shown:\n%s", code, want, shown)
	}
}

// One Ctrl-C ends what waits for standard input, and no terminal shows what was typed.
func TestInterruptedInput(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	s.connects("demo/acme")
	for args, question := range map[string]string{
		"app set demo --stdin":            "Paste the credentials as JSON, then press Ctrl-D.",
		"connection import --batch":       "Paste one JSON object per line, then press Ctrl-D.",
		"connection import demo/other":    "Refresh token (not shown): ",
		"app set demo":                    "Client ID ",
		"connection disconnect demo/acme": "Type its name to disconnect it: ",
	} {
		session := s.start(strings.Fields(args)...)
		session.sees(question)
		if strings.Contains(args, "import") || strings.Contains(args, "--stdin") { // not shown
			session.types("canary")
		}
		session.types("\x03")
		if exit, shown := session.ends(); exit != interrupted ||
			!strings.Contains(shown, "interrupted; nothing was") ||
			strings.Contains(shown, "canary") {
			t.Errorf("%s: exit code %d; shown:\n%s", args, exit, shown)
		}
	}
}

// An answer that cannot be written is no success.
func TestFullOutput(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	s.connects("demo/acme")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range []string{"token print demo/acme", "connection list", "--json connection list"} {
		cmd := exec.CommandContext(t.Context(), s.program, strings.Fields(args)...)
		var said strings.Builder
		cmd.Env, cmd.Stdout, cmd.Stderr = s.environ, full, &said
		_ = cmd.Run()
		if exit := cmd.ProcessState.ExitCode(); exit != failed || !strings.Contains(said.String(), "writing the answer: ") {
			t.Errorf("%s: exit code %d; said:\n%s", args, exit, said.String())
		}
	}
}
