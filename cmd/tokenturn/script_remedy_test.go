package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	// commandInText is a command in a text, up to where the text goes on.
	commandInText = regexp.MustCompile("tokenturn [^`;,()\"\\n]*")
	// blankInText is what a person replaces in a command, such as ENV/NAME or ID.
	blankInText = regexp.MustCompile(`^[A-Z]+(/[A-Z]+)?=`)
)

// cmdRemedy runs the command that a text tells a person to run, and wants its exit code:
// remedy CODE FILE PHRASE [BLANK=VALUE...] [ARGS...]. It is the first command after the
// phrase; the script does not repeat it. BLANK is what a person replaces in it, and ARGS
// are what a person adds. A person consents if the command waits for that.
func cmdRemedy(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	_, after, found := strings.Cut(ts.ReadFile(args[1]), args[2])
	command := commandInText.FindString(after)
	if !found || command == "" {
		ts.Fatalf("no command after %q:\n%s", args[2], ts.ReadFile(args[1]))
	}
	command, _, _ = strings.Cut(command, ": ") // the cause
	command, _, _ = strings.Cut(command, ". ")
	command, _, _ = strings.Cut(command, " in another terminal")
	words := strings.Fields(strings.TrimRight(command, ". "))
	for _, arg := range args[3:] {
		if !blankInText.MatchString(arg) {
			words = append(words, arg)
			continue
		}
		blank, value, _ := strings.Cut(arg, "=")
		for i := range words {
			if words[i] == blank {
				words[i] = value
			}
		}
	}
	ts.Logf("%s", strings.Join(words, " "))
	if len(words) > 2 && words[1] == "connection" && words[2] == "authorize" {
		cmdAuthorize(ts, false, append([]string{args[0], "bare"}, words[3:]...))
		return
	}
	if len(words) > 1 && words[1] == "serve" {
		serve(ts, words)
		return
	}
	checkExit(ts, ts.Exec(words[0], words[1:]...), want)
}

// serve starts `tokenturn serve` beside the script, until its end. What it says is in
// serve.remedy.
func serve(ts *testscript.TestScript, words []string) {
	said, err := os.Create(ts.MkAbs("serve.remedy"))
	ts.Check(err)
	cmd := exec.Command(commandPath(ts), words[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), said, said
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "RECORD=" + ts.Getenv("RECORD"), "GORACE=" + ts.Getenv("GORACE")}
	ts.Check(cmd.Start())
	ts.Check(said.Close())
	envOf(ts).served = cmd
	ts.Defer(func() { cmdStop(ts, false, nil) })
}

// cmdStop ends the `tokenturn serve` that cmdRemedy has started.
func cmdStop(ts *testscript.TestScript, _ bool, _ []string) {
	if w := envOf(ts); w.served != nil {
		_ = w.served.Process.Signal(os.Interrupt)
		_ = w.served.Wait()
		w.served = nil
	}
}

// cmdForeign makes the secret of a connection contain a token of another one: foreign CONNECTION OTHER.
func cmdForeign(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	store, err := embedded.Open(ctx, filepath.Join(ts.Getenv("HOME"), ".local", "share", "tokenturn"))
	ts.Check(err)
	defer store.Close()
	conn, err := token.ParseConnection(args[0])
	ts.Check(err)
	other, err := token.ParseConnection(args[1])
	ts.Check(err)
	secrets := store.SecretStore()
	version, err := secrets.Current(ctx, other)
	ts.Check(err)
	now, err := secrets.Current(ctx, conn)
	ts.Check(err)
	const id = "foreign-foreign-foreign-foreign-foreign"
	ts.Check(secrets.Put(ctx, conn, id, version.Value))
	ts.Check(secrets.Promote(ctx, conn, id, now.ID))
}

// cmdLive writes the refresh token of the newest live pair to a file.
func cmdLive(ts *testscript.TestScript, _ bool, args []string) {
	live := envOf(ts).standIn.Live()
	if len(live) == 0 {
		ts.Fatalf("no pair is alive")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(live[len(live)-1].RefreshToken.Reveal()+"\n"), 0o600))
}
