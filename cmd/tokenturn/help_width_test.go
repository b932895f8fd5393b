package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// unbroken are the only lines of help that may be wider than the terminal: a word that a
// person copies, or input that is JSON.
var unbroken = regexp.MustCompile(`^ *(\S+|jq .*'|.*\{".*|.*'.*'.*|".*")( \\)?$`)

// Help fits a narrow terminal, and says the same as on a wide one.
func TestHelpFits(t *testing.T) {
	const width = 60
	words := func(text string) string {
		return strings.Join(strings.Fields(strings.NewReplacer("\\\n", " ", "\n  # ", " ").Replace(text)), " ")
	}
	wide, narrow := (&cli{}).root(), (&cli{}).root()
	fitHelp(narrow, width)
	var texts []string
	visit(wide, func(cmd *cobra.Command) { texts = append(texts, helpOf(t, cmd)) })
	visit(narrow, func(cmd *cobra.Command) {
		help := helpOf(t, cmd)
		if want := texts[0]; words(help) != words(want) {
			t.Errorf("%s says\n%s\nwant\n%s", cmd.CommandPath(), words(help), words(want))
		}
		texts = texts[1:]
		for line := range strings.Lines(help) {
			if line = strings.TrimSuffix(line, "\n"); visible(line) > width && !unbroken.MatchString(line) {
				t.Errorf("%s: %d columns in %q", cmd.CommandPath(), visible(line), line)
			}
		}
	})
}

func helpOf(t *testing.T, cmd *cobra.Command) string {
	t.Helper()
	var out bytes.Buffer
	cmd.SetOut(&out)
	if err := cmd.Help(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
