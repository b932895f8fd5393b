package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/fsck"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// Whoever asks for help gets an example, whatever he asks about.
func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	visit((&cli{}).root(), func(cmd *cobra.Command) {
		if cmd.Short == "" || !strings.Contains(cmd.Example, "tokenturn") {
			t.Errorf("%s has no help with an example", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Example) {
			for _, example := range strings.Split(line, "tokenturn ")[1:] {
				checkExample(t, cmd.Root(), example)
			}
		}
	})
}

// The list of files is the list of commands: connection_show.go has `connection show`.
func TestEveryCommandHasItsFile(t *testing.T) {
	verbs, groups := map[string]bool{}, map[string]bool{}
	visit((&cli{}).root(), func(cmd *cobra.Command) {
		path := strings.Fields(strings.ReplaceAll(cmd.CommandPath(), "-", "_"))[1:]
		if len(path) == 0 || path[0] == "help" || path[0] == "completion" { // these are cobra's own
			return
		}
		name := strings.Join(path, "_")
		if cmd.HasSubCommands() {
			groups[name] = true
		} else {
			verbs[name] = true
		}
		if _, err := os.Stat(name + ".go"); err != nil {
			t.Errorf("%s: %v", cmd.CommandPath(), err)
		}
	})
	files, err := filepath.Glob("*_*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.NewReplacer("_test.go", "", "_linux_test.go", "", ".go", "").Replace(file)
		group, _, _ := strings.Cut(name, "_")
		for strings.Contains(name, "_") && !verbs[name] {
			name = name[:strings.LastIndex(name, "_")]
		}
		if groups[group] && !verbs[name] && name+"_test.go" != file {
			t.Errorf("%s belongs to no command of %s", file, group)
		}
	}
}

func visit(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, verb := range cmd.Commands() {
		visit(verb, do)
	}
}

// checkExample makes sure that the command and the flags of an example exist.
func checkExample(t *testing.T, root *cobra.Command, example string) {
	t.Helper()
	var words []string
	for _, word := range strings.Fields(example) {
		if strings.ContainsAny(word, "|<>&;)`'\"") || word == "--" {
			break
		}
		words = append(words, word)
	}
	found, rest, err := root.Find(words)
	if err != nil || found == root && len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		t.Errorf("example %q: no such command (%v)", example, err)
		return
	}
	for _, word := range rest {
		if name, isFlag := strings.CutPrefix(word, "--"); isFlag {
			name, _, _ = strings.Cut(name, "=")
			if found.Flags().Lookup(name) == nil && found.InheritedFlags().Lookup(name) == nil {
				t.Errorf("example %q: %s has no --%s", example, found.CommandPath(), name)
			}
		}
	}
}

// The README documents every field of every answer.
func TestAnswersAreDocumented(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, section := range strings.Split(string(text), "\n### ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		sections[title] = body
	}
	for title, answers := range map[string][]any{
		"app show": {appAnswer{}}, "app set": {appSetAnswer{}, affected{}}, "connection invite": {inviteAnswer{}},
		"connection authorize":       {authorizeAnswer{}},
		"connection service-account": {serviceAccountAnswer{}}, "connection list": {connectionAnswer{}},
		"connection show":    {connectionDetail{}, answerDetail{}, procore.Probe{}},
		"connection history": {rotation.Event{}}, "connection rotate, release, discard": {rotation.ConnectionReport{}},
		"connection rotate --all, connection import --batch": {rotation.Report{}},
		"connection disconnect":                              {disconnectAnswer{}, revocation{}},
		"connection undo":                                    {undoAnswer{}}, "connection protect": {protectAnswer{}},
		"invitation list, revoke": {invitationAnswer{}},
		"token print":             {tokenAnswer{}}, "doctor": {doctorAnswer{}, doctor.Finding{}}, "fsck": {fsck.Report{},
			fsck.Finding{}, fsck.NotMade{}},
		"man": {manAnswer{}},
	} {
		body, there := sections[title]
		if !there {
			t.Errorf("there is no section %q", title)
		}
		if title == "app set" {
			body += sections["app show"]
		}
		if title == "connection show" {
			body += sections["connection list"]
		}
		for _, answer := range answers {
			for _, name := range jsonNames(reflect.TypeOf(answer)) {
				if !strings.Contains(body, `"`+name+`"`) {
					t.Errorf("%s does not document %q", title, name)
				}
			}
		}
	}
}

func jsonNames(t reflect.Type) (names []string) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, jsonNames(f.Type)...)
		case name != "" && name != "-":
			names = append(names, name)
		}
	}
	return names
}
