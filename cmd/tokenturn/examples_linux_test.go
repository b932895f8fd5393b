package main

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// exampleRun says how an example is run. An example that is not in exampleRuns runs on a
// machine as newExampleMachine makes it, without input, and exits with 0.
type exampleRun struct {
	cannot string                         // why it cannot run here; it is parsed all the same
	before func(t *testing.T, m *machine) // brings about what the example is for
	stdin  string                         // TOKEN in it is m.refresh
	// person does at the terminal what a person does there, and returns the exit code wanted.
	person func(t *testing.T, s *session) int
	exits  int
}

var exampleRuns = map[string]exampleRun{
	"tokenturn --store aws app set production": {cannot: "needs AWS"},
	"tokenturn --store aws doctor":             {cannot: "needs AWS"},
	"tokenturn --store aws console":            {cannot: "needs AWS"},
	"tokenturn --store aws console --addr 0.0.0.0:8090\n" +
		"--public-url https://console.example.com": {cannot: "needs AWS"},
	"tokenturn --store aws connection protect --all\n" +
		"--rotate-role arn:aws:iam::111122223333:role/tokenturn-RotateRole-ABC\n" +
		"--recovery arn:aws:iam::111122223333:role/Operators\n" +
		"--recovery arn:aws:iam::111122223333:role/BreakGlass": {cannot: "needs AWS"},

	"tokenturn app set sandbox":           {person: entersCredentials},
	"tokenturn app set sandbox --dry-run": {person: entersCredentials},
	"tokenturn app set production --add":  {before: resetSecret, person: entersSecret},

	"tokenturn connection authorize sandbox/acme":                                              {person: pastesCode},
	"tokenturn connection authorize production/acme --company 4264807 --login pat@example.com": {person: pastesCode},
	"tokenturn connection authorize sandbox/acme --loopback=http://localhost:8765/callback": {before: registersLoopback,
		person: allowsByLoopback},
	"tokenturn connection import sandbox/acme --company 4264807":   {before: emptied, person: entersToken},
	"tokenturn connection import sandbox/acme < refresh-token.txt": {before: emptied},
	"tokenturn connection release sandbox/acme":                    {before: quarantined, stdin: "TOKEN\n"},
	"tokenturn connection discard sandbox/acme": {before: quarantined, stdin: "sandbox/acme\n",
		exits: tryLater},
	"tokenturn connection discard --environment sandbox": {before: quarantined, stdin: "sandbox\n",
		exits: tryLater},
	"tokenturn connection disconnect sandbox/acme": {stdin: "sandbox/acme\n"},
	"tokenturn connection undo sandbox/acme": {before: func(t *testing.T, m *machine) {
		m.succeeds("", "connection", "disconnect", "sandbox/acme", "--yes")
	}},
	"tokenturn connection forget sandbox/acmee":       {before: mistyped, stdin: "sandbox/acmee\n"},
	"tokenturn connection forget sandbox/acmee --yes": {before: mistyped},
	"tokenturn invitation revoke 1f3a5b7c9d0e":        {before: invited},

	"tokenturn connection convert production/acme --to user": {before: func(t *testing.T, m *machine) {
		m.succeeds("", "connection", "convert", "production/acme", "--to", "service-account")
	}},

	"tokenturn connection invite sandbox/acme --return-url https://app.example.com/procore": {before: func(_ *testing.T,
		m *machine) {
		m.environ = append(m.environ, "TOKENTURN_RETURN_ORIGINS=https://app.example.com")
	}},

	// Nothing shows that the app is installed in the company.
	"tokenturn setup production/sync --access service-account --company 4264807": {exits: failed},

	"tokenturn connection list --environment production --status needs_consent --watch": {person: stopsWatching},

	"tokenturn console --allow-actions":                   {person: stopsConsole},
	"tokenturn profile use acme":                          {before: profiled},
	"tokenturn profile remove acme":                       {before: profiled},
	"tokenturn --stack tokenturn-production config show":  {before: deployed},
	`eval "$(tokenturn --use acme config show --export)"`: {before: deployed},

	"tokenturn serve":        {person: stopsServing},
	"tokenturn serve --demo": {person: stopsServing},
	`tokenturn serve --addr localhost:9000 --every 30m --organization "Acme Builders"`: {person: stopsServing},
}

// Every example of every command is run by a shell as help shows it, with the stand-in for
// Procore. Those that cannot run here are parsed.
func TestExamples(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("help shows the examples for bash; install it: ", err)
	}
	c := &cli{}
	examples := map[string]example{}
	visit(c.root(), func(cmd *cobra.Command) {
		for _, e := range c.examples[cmd] {
			examples[e.command] = e
		}
	})
	for command := range exampleRuns {
		if _, there := examples[command]; !there {
			t.Errorf("there is no such example any more: %s", command)
		}
	}
	for command, e := range examples {
		t.Run(e.what, func(t *testing.T) {
			t.Parallel()
			run := exampleRuns[command]
			m := newExampleMachine(t)
			if run.cannot != "" {
				m.environ = append(m.environ, parseOnly+"=1")
			}
			if run.before != nil {
				run.before(t, m)
			}
			ctx, cancel := context.WithTimeout(t.Context(), waitLimit) // a terminal that shows something else ends then
			defer cancel()
			cmd := exec.CommandContext(ctx, bash, "-c", shellPrelude+e.String())
			cmd.Dir = m.home
			if run.person != nil {
				s := m.startInTerminal(cmd)
				want := run.person(t, s)
				if exit, shown := s.ends(); exit != want {
					t.Errorf("exit code %d, want %d:\n%s\n%s", exit, want, e, shown)
				}
				return
			}
			var stdout, stderr strings.Builder
			cmd.Env, cmd.Stdin = m.environ, strings.NewReader(strings.ReplaceAll(run.stdin, "TOKEN", m.refresh.Reveal()))
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run()
			if exit := cmd.ProcessState.ExitCode(); exit != run.exits {
				t.Errorf("exit code %d, want %d:\n%s\n%s%s", exit, run.exits, e, stdout.String(), stderr.String())
			}
			if run.cannot != "" && !strings.HasPrefix(stdout.String(), "parsed tokenturn ") {
				t.Errorf("it was not parsed (it cannot run because it %s):\n%s\n%s", run.cannot, e, stdout.String())
			}
			if !strings.HasPrefix(command, "tokenturn token print") {
				m.keepsSecrets(stdout.String())
			}
			m.keepsSecrets(stderr.String())
		})
	}
}

// profiled: there is a profile acme.
func profiled(t *testing.T, m *machine) {
	m.succeeds("", "profile", "add", "acme", "--stack", "tokenturn-production", "--region", "us-east-1")
}

// deployed: its stack is there too.
func deployed(t *testing.T, m *machine) {
	profiled(t, m)
	outputs := map[string]string{"PublicUrl": "https://connect.example.com", "QueueUrl": "https://sqs.example.com/1/q",
		"TopicArn": "arn:aws:sns:us-east-1:111122223333:notices", "Cadence": "1h", "RedeemRate": "2", "LogLevel": "info"}
	for _, name := range []string{"Table", "SealKey", "VaultKey", "Stack", "SecretPrefix"} {
		outputs[name] = "tokenturn"
	}
	cloud := httptest.NewServer(&fakeAWS{stacks: map[string]fakeStack{
		"tokenturn-production": {"CREATE_COMPLETE", outputs}}})
	t.Cleanup(cloud.Close)
	m.environ = append(m.environ, "AWS_ENDPOINT_URL="+cloud.URL, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=own",
		"AWS_SECRET_ACCESS_KEY=secret-access-key")
}

// shellPrelude stands for what only other shells have. fpath is zsh's, and `source` takes
// a pipe in fish.
const shellPrelude = `set -o pipefail
fpath=(. .)
source() { if [ $# = 0 ]; then cat >/dev/null; else builtin source "$@"; fi; }
`

// newExampleMachine has app credentials for sandbox and production, an active connection
// acme in each, the files that examples name, and something in place of programs that
// would reach the network or may not be installed.
func newExampleMachine(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t)
	m.environ = append(m.environ, "PATH="+m.home+":/usr/bin:/bin")
	m.app.ServiceAccount = []int64{4264807}
	m.standIn.Register(m.app)
	credentials, err := json.Marshal(map[string]string{"client_id": m.app.ClientID,
		"client_secret": m.app.ClientSecret.Reveal(), "redirect_uri": "http://localhost:8080/callback/sandbox",
		"login_url": m.standIn.URL, "api_url": m.standIn.URL})
	if err != nil {
		t.Fatal(err)
	}
	m.refresh = m.issues()
	write := func(name string, mode os.FileMode, text string) {
		if err := os.WriteFile(filepath.Join(m.home, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("credentials.json", 0o600, string(credentials))
	write("logo.png", 0o600, aPNG(t))
	write("refresh-token.txt", 0o600, m.refresh.Reveal()+"\n")
	write("tokens.jsonl", 0o600, m.importLine("sandbox/one")+m.importLine("sandbox/two"))
	write("nightly-report", 0o700, "#!/bin/sh\ntest -n \"$PROCORE_ACCESS_TOKEN\"\n")
	write("curl", 0o700, "#!/bin/sh\ncase \"$*$(test \"$2\" = @- && cat)\" in\n"+
		"*'Authorization: Bearer '?*) ;;\n*) exit 1;;\nesac\n")
	write("man", 0o700, "#!/bin/sh\ntest -s \"$HOME/.local/share/man/man1/$1.1\"\n")
	write("Out-String", 0o700, "#!/bin/sh\ncat\n")
	write("Invoke-Expression", 0o700, "#!/bin/sh\ncat >/dev/null\n")
	if _, err := exec.LookPath("jq"); err != nil {
		t.Log("jq is not here: its filters are not tried")
		write("jq", 0o700, "#!/bin/sh\ncat\n")
	}
	for _, environment := range []string{"sandbox", "production"} {
		value := strings.ReplaceAll(string(credentials), "callback/sandbox", "callback/"+environment)
		m.succeeds(value, "app", "set", environment, "--stdin", "--no-check")
	}
	m.succeeds(m.importLine("sandbox/acme")+m.importLine("production/acme"), "connection", "import", "--batch")
	return m
}

// succeeds runs a command within the test, which is quicker than a process.
func (s *machine) succeeds(input string, args ...string) {
	s.t.Helper()
	var said strings.Builder
	exit := run(s.t.Context(), args, strings.NewReader(input), &said, &said, s.environ)
	if exit != done {
		s.t.Fatalf("%q exits with %d: %s", args, exit, said.String())
	}
}

// issues makes a pair outside of tokenturn and returns its refresh token.
func (s *machine) issues() token.Secret {
	s.t.Helper()
	pair, err := s.standIn.Issue(s.app.ClientID, procoretest.DefaultUser().Login)
	if err != nil {
		s.t.Fatal(err)
	}
	return pair.RefreshToken
}

// importLine is a line of input for `connection import --batch`.
func (s *machine) importLine(connection string) string {
	s.t.Helper()
	return fmt.Sprintf(`{"connection":%q,"refresh_token":%q,"company":"4264807"}`+"\n", connection, s.issues().Reveal())
}

// aPNG is the content of a small PNG.
func aPNG(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	if err := png.Encode(&out, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// emptied leaves no connections, for an import wants a new one.
func emptied(t *testing.T, m *machine) {
	if err := os.RemoveAll(filepath.Join(m.home, ".local")); err != nil {
		t.Fatal(err)
	}
	credentials, err := os.ReadFile(filepath.Join(m.home, "credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	m.succeeds(string(credentials), "app", "set", "sandbox", "--stdin")
}

// quarantined makes the next answer for sandbox/acme name two refresh tokens, of which
// m.refresh is the one that works.
func quarantined(t *testing.T, m *machine) {
	m.standIn.Script(procoretest.Rewritten(func(sound string) string {
		var pair struct {
			Refresh string `json:"refresh_token"`
		}
		if err := json.Unmarshal([]byte(sound), &pair); err != nil {
			t.Error(err)
		}
		m.refresh = token.NewSecret(pair.Refresh)
		return strings.TrimSuffix(strings.TrimSpace(sound), "}") +
			`,"refresh_token":"another-refresh-token-of-the-right-length"}`
	}))
	if exit, said := m.pipe("", "connection", "rotate", "sandbox/acme"); exit != failed {
		t.Fatalf("the rotation exits with %d: %s", exit, said)
	}
}

// invited stores an invitation with the id of the example.
func invited(t *testing.T, m *machine) {
	in, err := (&cli{environ: m.environ}).openEmbedded(t.Context(), filepath.Join(m.home, ".local", "share", "tokenturn"),
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	now := time.Now()
	err = in.consents.CreateInvitation(t.Context(), invitations.Invitation{Hash: "1f3a5b7c9d0e" + strings.Repeat("0", 52),
		Connection: token.Connection{Environment: "sandbox", Name: "acme"}, Epoch: 1, CreatedAt: now,
		ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
}

// mistyped: somebody was invited to a name that is wrong.
func mistyped(_ *testing.T, m *machine) { m.succeeds("", "connection", "invite", "sandbox/acmee") }

func entersCredentials(t *testing.T, s *session) int {
	for _, answer := range []struct{ question, typed string }{{"Client ID ", ""}, {"Client secret ",
		s.at.app.ClientSecret.Reveal()}, {"Redirect URI ", ""}, {"Login URL, ", ""}, {"API URL, ", ""}} {
		s.sees(answer.question)
		s.types(answer.typed + "\n")
	}
	return done
}

// resetSecret gives the app another client secret than the stored one.
func resetSecret(_ *testing.T, m *machine) {
	m.app.ClientSecret = token.NewSecret("reset-" + m.app.ClientSecret.Reveal())
	m.standIn.Register(m.app)
}

func entersSecret(_ *testing.T, s *session) int {
	s.sees("Second client secret (not shown): ")
	s.types(s.at.app.ClientSecret.Reveal() + "\n")
	return done
}

func entersToken(t *testing.T, s *session) int {
	s.sees("Refresh token (not shown): ")
	s.types(s.at.refresh.Reveal() + "\n")
	return done
}

func pastesCode(t *testing.T, s *session) int {
	s.types(s.at.allow(s.person, codeQuestion).Reveal() + "\n")
	return done
}

const exampleRedirect = "http://localhost:8765/callback"

func registersLoopback(t *testing.T, m *machine) {
	m.app.RedirectURIs = append(m.app.RedirectURIs, exampleRedirect)
	m.standIn.Register(m.app)
}

func allowsByLoopback(t *testing.T, s *session) int {
	if s.seesOne(waitingForRedirect, portTaken) == portTaken {
		return failed
	}
	back, err := s.at.standIn.Consent(authorizeAddress.FindString(s.shown), procoretest.DefaultUser().Login, true)
	if err != nil {
		t.Fatal(err)
	}
	page, err := http.Get(back)
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	return done
}

// portTaken is said where something else on this machine has the port of an example.
const portTaken = "address already in use"

// stopsConsole presses Ctrl-C once the console is there.
func stopsConsole(t *testing.T, s *session) int {
	if s.seesOne("Console: http://", portTaken) == portTaken {
		return failed
	}
	s.types("\x03")
	return done
}

// stopsWatching presses Ctrl-C once the list is there.
func stopsWatching(_ *testing.T, s *session) int {
	s.sees("every 2s: 0 connections")
	s.types("\x03")
	return done
}

// stopsServing presses Ctrl-C once the program serves.
func stopsServing(t *testing.T, s *session) int {
	if s.seesOne("Serving http://", "Press Ctrl-C", portTaken) == portTaken {
		return failed
	}
	s.types("\x03")
	return done
}
