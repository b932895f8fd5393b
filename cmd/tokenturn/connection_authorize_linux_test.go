package main

import (
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Each way of answering the question for a code, with what it leads to. None but
// a code is presented to anybody, none appears on the terminal, and only a code
// that is accepted changes anything.
func TestAnswersToTheQuestionForACode(t *testing.T) {
	for name, input := range map[string]struct {
		typed string // with CODE and URL in place of the code and the stand-in's address
		exit  int
		says  string
	}{
		"the code":          {"CODE\n", done, "demo/acme is connected: Procore user 160586"},
		"whole address":     {"URL/oauth/authorize/native?code=CODE\n", done, "is connected"},
		"old whole address": {"URL/oauth/authorize/CODE\n", done, "is connected"},
		"prefix":            {"code=CODE\n", done, "is connected"},
		"spaces and tabs":   {"  \tCODE \t \n", done, "is connected"},
		"newlines before":   {"\n\nCODE\n", done, "Nothing was pasted."},
		"quotes":            {"'CODE'\n", done, "is connected"},
		"double quotes":     {"\"URL/oauth/authorize/native?code=CODE\"\n", done, "is connected"},
		"empty paste": {"\n\n\n", usage, "nothing was pasted, so nothing was changed; run the command " +
			"again, and paste the code that Procore shows"},
		"quotes around air":   {"''\n\n\n", usage, "nothing was pasted, so nothing was changed"},
		"end of input":        {"\x04", usage, "the input has ended; no code was exchanged and nothing was changed"},
		"Ctrl-C":              {"\x03", interrupted, "interrupted; no code was exchanged and nothing was changed"},
		"Ctrl-C after a part": {"CODE\x03", interrupted, "interrupted; no code was exchanged and nothing was changed"},
		"something else": {"what is the code?\n", usage, "there is no authorization code in what was pasted, " +
			"so nothing was changed"},
		"address without code": {"URL/oauth/authorize\n", usage, "there is no authorization code in what was pasted"},
		"terminal escapes":     {"\x1b[31mCODE\x1b[0m\n", usage, "there is no authorization code in what was pasted"},
		"denied": {"http://localhost/?error=access_denied\n", needsConsent, "says that access was not " +
			"allowed, so nothing was changed; run the command again and choose Allow"},
		"another environment": {"https://login.procore.com/oauth/authorize/native?code=CODE\n", usage,
			"is at login.procore.com, the login host of production, but the code must come from demo"},
		"a made-up code": {"made-up-code\n", needsConsent, "Procore refuses the code: it was used before, " +
			"is older than ten minutes, belongs to another URL than the one printed here, or belongs to another " +
			"environment than demo"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newMachine(t)
			session := s.start("connection", "authorize", "demo/acme")
			code := s.allow(session.person, codeQuestion)
			before := len(s.standIn.Presentations())
			session.types(strings.NewReplacer("CODE", code.Reveal(), "URL", s.standIn.URL).Replace(input.typed))
			exit, shown := session.ends()
			if exit != input.exit || !strings.Contains(shown, input.says) {
				t.Errorf("exit code %d, want %d with %q; shown:\n%s", exit, input.exit, input.says, shown)
			}
			if strings.Contains(shown, code.Reveal()) || strings.Contains(shown, "\x1b") {
				t.Errorf("the code or an escape sequence is on the terminal: %q", shown)
			}
			status, presented := "", 0 // nothing was changed
			if exit == done {
				status, presented = "active", 1
			} else if name == "a made-up code" {
				status, presented = "pending", 1
			}
			if got := s.status("demo/acme"); got != status {
				t.Errorf("the connection is %q, want %q", got, status)
			}
			if got := len(s.standIn.Presentations()) - before; got != presented {
				t.Errorf("%d codes were presented, want %d", got, presented)
			}
		})
	}
}

// Once the code is on its way no interrupt ends the program, and the pair is kept.
func TestInterruptedTwiceDuringTheExchange(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	session := s.start("connection", "authorize", "demo/acme")
	code := s.allow(session.person, codeQuestion)
	arrived, release := s.holdAnswer()
	session.types(code.Reveal() + "\n")
	arrived()
	for n := range 2 {
		session.types("\x03")
		session.seesAgain("The code is being exchanged. Stopping now would lose the token pair", n)
	}
	release()
	exit, shown := session.ends()
	if exit != done || !strings.Contains(shown, "demo/acme is connected") || s.status("demo/acme") != "active" {
		t.Errorf("exit code %d; shown:\n%s", exit, shown)
	}
}

// A code works once, for ten minutes, in its own environment, for the address
// that asked for it. Servers give one answer to all other uses.
func TestCodesThatAreRefused(t *testing.T) {
	t.Parallel()
	var late atomic.Int64
	s := newMachine(t, procoretest.WithClock(func() time.Time { return time.Now().Add(time.Duration(late.Load())) }))
	other := s.standIn.NewApp("http://localhost:8080/callback/other", procoretest.OutOfBand)
	s.credentials("other", other)

	used := s.connects("demo/acme")
	session := s.start("connection", "authorize", "demo/acme")
	session.sees(codeQuestion)
	session.types(used.Reveal() + "\n")
	if exit, shown := session.ends(); exit != needsConsent || !strings.Contains(shown, "perhaps with the same code, "+
		"and a code works once; the connection stays as it is") {
		t.Errorf("repeated: exit code %d; shown:\n%s", exit, shown)
	}
	if got := s.status("demo/acme"); got != "active" {
		t.Errorf("a repeated code made the connection %s", got)
	}

	session = s.start("connection", "authorize", "demo/late")
	code := s.allow(session.person, codeQuestion)
	late.Store(int64(11 * time.Minute))
	session.types(code.Reveal() + "\n")
	if exit, shown := session.ends(); exit != needsConsent || !strings.Contains(shown, "is older than ten minutes") {
		t.Errorf("expired: exit code %d; shown:\n%s", exit, shown)
	}

	elsewhere := s.start("connection", "authorize", "other/acme")
	code = s.allow(elsewhere.person, codeQuestion)
	elsewhere.types("\x03")
	elsewhere.ends()
	session = s.start("connection", "authorize", "demo/late")
	session.sees(codeQuestion)
	session.types(code.Reveal() + "\n")
	if exit, shown := session.ends(); exit != needsConsent || !strings.Contains(shown,
		"belongs to another environment than demo") {
		t.Errorf("of another environment: exit code %d; shown:\n%s", exit, shown)
	}
}

// Where this program knows that ten minutes are over, it says so.
func TestCodeRefusedLate(t *testing.T) {
	in, err := (&cli{}).openEmbedded(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	err = in.codeRefused(t.Context(), token.Connection{Environment: "demo", Name: "acme"}, time.Now().Add(-11*time.Minute),
		errors.New("HTTP 400 invalid_grant"))
	if exitCode(err) != needsConsent || !strings.Contains(err.Error(),
		"more than ten minutes have passed since the URL was printed") {
		t.Errorf("got %v", err)
	}
}

// A database that does not take the pair after the exchange loses nothing: the response is
// in the reserve, and the next run makes it the current one.
func TestDatabaseRefusesAfterTheExchange(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	session := s.start("connection", "authorize", "demo/acme")
	code := s.allow(session.person, codeQuestion)
	db, err := sql.Open("sqlite", filepath.Join(s.home, ".local", "share", "tokenturn", embedded.DatabaseName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const full = `CREATE TRIGGER full BEFORE INSERT ON mint BEGIN SELECT RAISE(ABORT, 'disk full'); END`
	if _, err := db.Exec(full); err != nil {
		t.Fatal(err)
	}
	session.types(code.Reveal() + "\n")
	exit, shown := session.ends()
	if exit != tryLater || !strings.Contains(shown, "the token pair of demo/acme is saved, but the consent could not be "+
		"completed yet; the next run completes it") {
		t.Errorf("exit code %d; shown:\n%s", exit, shown)
	}
	if _, err := db.Exec(`DROP TRIGGER full`); err != nil {
		t.Fatal(err)
	}
	exit, shown = s.start("connection", "rotate", "demo/acme").ends()
	if exit != done || s.status("demo/acme") != "active" {
		t.Errorf("afterwards: exit code %d, %s; shown:\n%s", exit, s.status("demo/acme"), shown)
	}
}

// What a server says never reaches the terminal as it is.
func TestServerTextHasNoPowerOverTheTerminal(t *testing.T) {
	t.Parallel()
	const escape = "\x1b]0;canary\x07\x1b[2J"
	user := procoretest.DefaultUser()
	user.Name += escape
	s := newMachine(t, procoretest.WithUser(user))
	for _, body := range []string{`{"error":"invalid_grant","error_description":"\u001b]0;canary\u0007\u001b[2J"}`,
		escape} {
		session := s.start("connection", "authorize", "demo/acme")
		code := s.allow(session.person, codeQuestion)
		s.standIn.Script(procoretest.Answer{Unreceived: true, Status: 400, Body: func(string) string { return body }})
		session.types(code.Reveal() + "\n")
		if exit, shown := session.ends(); exit == done || strings.ContainsAny(shown, "\x1b\x07") || strings.Contains(shown,
			"canary") {
			t.Errorf("exit code %d; shown: %q", exit, shown)
		}
	}
}
