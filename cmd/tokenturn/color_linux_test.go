package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
)

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// Colors and progress bars are for terminals, and say nothing that the text does not.
func TestColorsAndProgressOnTerminalsOnly(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	s.connects("demo/acme")
	s.connects("demo/other")
	colored := func(args ...string) (bool, string) {
		session := s.start(args...)
		_, shown := session.ends()
		return strings.Contains(shown, "\x1b[3"), strings.ReplaceAll(escapes.ReplaceAllString(shown, ""), "\r\n", "\n")
	}
	on, shown := colored("connection", "list")
	_, piped := s.pipe("", "connection", "list")
	words := func(text string) string {
		return strings.Join(strings.Fields(regexp.MustCompile(`[0-9]+s ago`).ReplaceAllString(text, "")), " ")
	}
	if !on || words(shown) != words(piped) {
		t.Errorf("colored: %v; on a terminal:\n%s\nin a pipe:\n%s", on, shown, piped)
	}
	if strings.Contains(piped, "\x1b") {
		t.Errorf("a pipe gets %q", piped)
	}
	if _, shown := colored("connection", "rotate", "--all"); !strings.Contains(shown, "Rotating") ||
		!strings.Contains(shown, "2 rotated") {
		t.Errorf("no progress: %q", shown)
	}
	if _, shown := colored("--json", "connection", "rotate", "--all"); strings.Contains(shown, "Rotating") {
		t.Errorf("progress beside JSON: %q", shown)
	}
	if _, piped := s.pipe("", "connection", "rotate", "--all"); strings.Contains(piped, "Rotating") {
		t.Errorf("progress in a pipe: %q", piped)
	}
	for _, off := range []string{"NO_COLOR=1", "TERM=dumb"} {
		s.environ = append(s.environ, off)
		if on, _ := colored("connection", "list"); on {
			t.Errorf("colored in spite of %s", off)
		}
		s.environ = s.environ[:len(s.environ)-1]
	}
}

// A person at a terminal reads sentences, unless a program is to read the log.
func TestLogInATerminal(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	for name, test := range map[string]struct{ flag, want, not string }{
		"demo/acme":  {"--store=embedded", "demo/acme: notice (quarantined): ", "level="},
		"demo/other": {"--log=json", `"msg":"notice","kind":"quarantined"`, "notice (quarantined)"},
	} {
		s.connects(name)
		s.standIn.Script(procoretest.Rewritten(func(sound string) string {
			return strings.TrimSuffix(strings.TrimSpace(sound), "}") +
				`,"refresh_token":"another-refresh-token-of-the-right-length"}`
		}))
		session := s.start("connection", "rotate", name, test.flag)
		if exit, shown := session.ends(); exit != failed || !strings.Contains(shown, test.want) ||
			strings.Contains(shown, test.not) {
			t.Errorf("%s: exit code %d; shown:\n%s", test.flag, exit, shown)
		}
	}
	if exit, said := s.pipe("", "connection", "list", "--log", "xml"); exit != usage ||
		!strings.Contains(said, "--log takes sentences, logfmt, json") {
		t.Errorf("exit code %d; said:\n%s", exit, said)
	}
}
