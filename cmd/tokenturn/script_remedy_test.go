package main

import (
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
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
	checkExit(ts, ts.Exec(words[0], words[1:]...), want)
}

// cmdLive writes the refresh token of the newest live pair to a file.
func cmdLive(ts *testscript.TestScript, _ bool, args []string) {
	live := envOf(ts).standIn.Live()
	if len(live) == 0 {
		ts.Fatalf("no pair is alive")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(live[len(live)-1].RefreshToken.Reveal()+"\n"), 0o600))
}
