package infra_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// exitCodePage lists every exit code that a script has seen, by command.
const exitCodePage = "exit-codes.md"

// scriptRun is a line of a script that runs the command: with `exits` or `until` and a code, or else
// successfully.
var scriptRun = regexp.MustCompile(`(?m)^(?:(?:exits|until) (\d+) |exec )?tokenturn(?: --(?:json|(?:store|data|use|` +
	`stack|region|profile) \S+))* ((?:app|connection|invitation|token|profile|config) [a-z][a-z-]+|` +
	`setup|serve|console|doctor|fsck|worker|completion|man)\b|^(authorize) (\d+) `)

// TestExitCodesAreListed wants the page to be what the scripts see. Write it again with -update-remedies.
func TestExitCodesAreListed(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(top, scripts, "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]map[int]bool{}
	for _, file := range files {
		for _, run := range scriptRun.FindAllStringSubmatch(read(t, file), -1) {
			command, code := run[2], cmp.Or(run[1], run[4], "0")
			if run[3] != "" {
				command = "connection authorize"
			}
			number, err := strconv.Atoi(code)
			if err != nil {
				t.Fatal(err)
			}
			if seen[command] == nil {
				seen[command] = map[int]bool{}
			}
			seen[command][number] = true
		}
	}
	var want strings.Builder
	want.WriteString("# Exit codes\n\nThe exit codes of each command that the scripts in `" + scripts + "` see.\n" +
		"[`cmd/tokenturn/README.md`](../../cmd/tokenturn/README.md) says what they mean.\n" +
		"`go test ./infra/test -run TestExitCodesAreListed` checks this page, and `-update-remedies` writes it again.\n\n" +
		"| command | exit codes |\n| --- | --- |\n")
	for _, command := range slices.Sorted(maps.Keys(seen)) {
		codes := fmt.Sprint(slices.Sorted(maps.Keys(seen[command])))
		if codes != "[2]" { // no command
			fmt.Fprintf(&want, "| `%s` | %s |\n", command, strings.ReplaceAll(strings.Trim(codes, "[]"), " ", ", "))
		}
	}
	if *updateRemedies {
		if err := os.WriteFile(exitCodePage, []byte(want.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if page, err := os.ReadFile(exitCodePage); err != nil || string(page) != want.String() {
		t.Errorf("%s is not what the scripts see (%v); write it again with -update-remedies", exitCodePage, err)
	}
}
