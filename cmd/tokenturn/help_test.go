package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/fsck"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// Every command has examples, and help and manual page show them whole: no line of them is
// continued by anything but the rest of the same command.
func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	c := &cli{}
	root := c.root()
	var all []*cobra.Command // as users have it: asked for help itself, cobra adds commands
	visit(root, func(cmd *cobra.Command) { all = append(all, cmd) })
	for _, cmd := range all {
		examples := c.examples[cmd]
		if cmd.Short == "" || len(examples) == 0 {
			t.Errorf("%s has no help with an example", cmd.CommandPath())
		}
		var help, page bytes.Buffer
		cmd.SetOut(&help)
		if err := errors.Join(cmd.Help(), doc.GenMan(cmd, &doc.GenManHeader{}, &page)); err != nil {
			t.Error(err)
		}
		for _, e := range examples {
			if e.what == "" || strings.ContainsAny(e.what[len(e.what)-1:], ".:\\") {
				t.Errorf("%s: example %q says what it is for in no good form: %q", cmd.CommandPath(), e.command, e.what)
			}
			if !strings.Contains(help.String(), e.String()+"\n") || strings.Contains(e.String(), "\\\n  #") ||
				strings.HasSuffix(e.String(), "\\") {
				t.Errorf("%s: its help does not show the example whole:\n%s", cmd.CommandPath(), help.String())
			}
			last := e.command[strings.LastIndex(e.command, "\n")+1:]
			unescape := strings.NewReplacer(`\-`, "-", `\(ti`, "~", `\(aq`, "'", `\[u007C]`, "|", `\'`, "'", "\\\\", `\`)
			if !strings.Contains(unescape.Replace(page.String()), last) {
				t.Errorf("%s: its manual page does not show %q:\n%s", cmd.CommandPath(), last, page.String())
			}
		}
	}
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

// parseOnly is the variable that makes the test's own tokenturn check a command line and
// do nothing.
const parseOnly = "PARSE_ONLY"

// parse takes a command line as run does, up to the point at which the command would start.
func parse(args []string, stdout, stderr io.Writer) int {
	root := (&cli{stdout: stdout, stderr: stderr}).root()
	visit(root, func(cmd *cobra.Command) {
		if cmd.HasSubCommands() { // it takes no arguments and starts nothing
			return
		}
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(stdout, "parsed", cmd.CommandPath())
			return nil
		}
	})
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		fmt.Fprintln(stderr, err)
		return exitCode(err)
	}
	return done
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
		"setup":    {setupAnswer{}, setupStep{}, redirectURI{}, procore.Company{}},
		"app show": {appAnswer{}}, "app set": {appSetAnswer{}, affected{}}, "connection invite": {inviteAnswer{}},
		"connection authorize":       {authorizeAnswer{}},
		"connection service-account": {serviceAccountAnswer{}}, "connection list": {connectionAnswer{}},
		"connection show":    {connectionDetail{}, answerDetail{}, procore.Probe{}},
		"connection history": {rotation.Event{}}, "connection rotate, release, discard": {rotation.ConnectionReport{}},
		"connection rotate --all, connection import --batch": {rotation.Report{}},
		"connection disconnect":                              {disconnectAnswer{}, revocation{}},
		"connection undo":                                    {undoAnswer{}}, "connection protect": {protectAnswer{}},
		"connection forget":       {forgetAnswer{}},
		"invitation list, revoke": {invitationAnswer{}},
		"token print":             {tokenAnswer{}}, "doctor": {doctorAnswer{}, doctor.Finding{}},
		"doctor --advise": {adviceAnswer{}, advice{}, difference{}, connectionAdvice{}}, "fsck": {fsck.Report{},
			fsck.Finding{}, fsck.NotMade{}},
		"man": {manAnswer{}}, "profile add, list, remove": {profileAnswer{}}, "profile use": {useAnswer{}},
		"config show": {configAnswer{}, configValue{}},
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
