package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// machine is a computer at which a person operates tokenturn: a home of its own
// and a stand-in for Procore.
type machine struct {
	t       *testing.T
	home    string
	program string
	standIn *procoretest.Server
	app     procoretest.App
	environ []string
	refresh token.Secret // a refresh token that the person knows; see newExampleMachine
}

// newMachine has app credentials for the environment demo.
func newMachine(t *testing.T, options ...procoretest.Option) *machine {
	t.Helper()
	s := &machine{t: t, home: t.TempDir(), standIn: procoretest.New(options...)}
	t.Cleanup(s.standIn.Close)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.program = filepath.Join(s.home, "tokenturn") // the name by which TestMain knows what to be
	if err := os.Symlink(self, s.program); err != nil {
		t.Fatal(err)
	}
	s.environ = []string{"HOME=" + s.home, "PATH=" + s.home, "GORACE=" + os.Getenv("GORACE")}
	s.app = s.standIn.NewApp("http://localhost:8080/callback/demo", procoretest.OutOfBand)
	s.credentials("demo", s.app)
	return s
}

func (s *machine) credentials(environment string, app procoretest.App) {
	s.t.Helper()
	value, err := json.Marshal(map[string]string{"client_id": app.ClientID, "client_secret": app.ClientSecret.Reveal(),
		"redirect_uri": app.RedirectURIs[0], "login_url": s.standIn.URL, "api_url": s.standIn.URL})
	if err != nil {
		s.t.Fatal(err)
	}
	if code, said := s.pipe(string(value), "app", "set", environment, "--stdin"); code != done {
		s.t.Fatalf("app set exits with %d: %s", code, said)
	}
}

// pipe runs a command with input from a pipe, and returns its exit code and all
// that it said.
func (s *machine) pipe(input string, args ...string) (int, string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), s.program, args...)
	cmd.Env, cmd.Stdin = s.environ, strings.NewReader(input)
	said, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	s.keepsSecrets(string(said))
	return cmd.ProcessState.ExitCode(), string(said)
}

// keepsSecrets searches what was said for everything that the stand-in gave.
func (s *machine) keepsSecrets(said string) {
	s.t.Helper()
	for _, secret := range s.standIn.Secrets() {
		if strings.Contains(said, secret.Reveal()) {
			s.t.Errorf("a secret was said: %q", said)
		}
	}
}

// session is a command that runs in a terminal of its own.
type session struct {
	*person
	at  *machine
	cmd *exec.Cmd
}

// start starts tokenturn in a terminal, where Ctrl-C is a signal.
func (s *machine) start(args ...string) *session {
	s.t.Helper()
	return s.startInTerminal(exec.CommandContext(s.t.Context(), s.program, args...))
}

func (s *machine) startInTerminal(cmd *exec.Cmd) *session {
	s.t.Helper()
	cmd.Env = s.environ
	side, terminal, err := pty.Open()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { side.Close() })
	defer terminal.Close()
	// By default Ctrl-C also drops what was just shown, and with it the words of a program that
	// is quick to answer.
	settings, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err == nil {
		settings.Lflag |= unix.NOFLSH
		err = unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETS, settings)
	}
	if err == nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return &session{&person{t: s.t, side: side}, s, cmd}
}

// ends waits for the end and returns the exit code and all that was shown.
func (s *session) ends() (int, string) {
	s.t.Helper()
	shown := s.rest()
	_ = s.cmd.Wait()
	s.at.keepsSecrets(shown)
	return s.cmd.ProcessState.ExitCode(), shown
}

var authorizeAddress = regexp.MustCompile(`http://\S+/oauth/authorize\?\S+`)

// allow consents at the address that the session has shown, and returns the code.
func (s *machine) allow(at *person, question string) token.Secret {
	s.t.Helper()
	at.sees(question)
	shown, err := s.standIn.Consent(authorizeAddress.FindString(at.shown), procoretest.DefaultUser().Login, true)
	if err != nil {
		s.t.Fatal(err)
	}
	return token.NewSecret(shown[strings.LastIndexAny(shown, "=/")+1:])
}

// connects authorizes a connection and returns the code that did it.
func (s *machine) connects(connection string) token.Secret {
	s.t.Helper()
	session := s.start("connection", "authorize", connection)
	code := s.allow(session.person, codeQuestion)
	session.types(code.Reveal() + "\n")
	if exit, shown := session.ends(); exit != done {
		s.t.Fatalf("authorize exits with %d: %s", exit, shown)
	}
	return code
}

const codeQuestion = "Code or URL (not shown): "

// status is what `connection list` says of a connection.
func (s *machine) status(connection string) string {
	s.t.Helper()
	code, list := s.pipe("", "connection", "list")
	if code != done {
		s.t.Fatal(list)
	}
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); fields[0] == connection {
			return fields[1]
		}
	}
	return ""
}
