package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/infra/test/markdown"
)

// Every tokenturn command in a block of code on a page could be started as it stands. A command in
// the text may leave out arguments; its words and flags exist.
func TestCommandsOnPages(t *testing.T) {
	root := (&cli{}).root()
	whole, spans := 0, 0
	for page, text := range pages(t) {
		blocks, inText := markdown.Code(text)
		for _, block := range blocks {
			for _, args := range tokenturnCommands(block.Text) {
				whole++
				var output bytes.Buffer
				if exit := parse(args, &output, &output); exit != done || !strings.HasPrefix(output.String(), "parsed ") {
					t.Errorf("%s: tokenturn %s\n%s", page, strings.Join(args, " "), output.String())
				}
			}
		}
		for _, span := range inText {
			commands := tokenturnCommands(span)
			if noun, _, _ := strings.Cut(span, " "); len(commands) == 0 && isNoun(root, noun) {
				commands = tokenturnCommands("tokenturn " + span)
			}
			for _, args := range commands {
				spans++
				if err := exists(args); err != nil {
					t.Errorf("%s: `%s`: %v", page, span, err)
				}
			}
		}
	}
	t.Logf("%d commands in blocks, %d in the text", whole, spans)
	if whole < 20 || spans < 20 {
		t.Error("the commands on the pages are not found")
	}
}

// Every config.toml on a page is one that the command accepts.
func TestProfilesOnPages(t *testing.T) {
	files := 0
	for page, text := range pages(t) {
		blocks, _ := markdown.Code(text)
		for _, block := range blocks {
			if block.Language != "toml" {
				continue
			}
			files++
			dir := t.TempDir()
			path := filepath.Join(dir, "tokenturn", "config.toml")
			if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700),
				os.WriteFile(path, []byte(block.Text), 0o600)); err != nil {
				t.Fatal(err)
			}
			if all, err := (&cli{environ: []string{"XDG_CONFIG_HOME=" + dir}}).readProfiles(); err != nil ||
				len(all.Profiles) == 0 {
				t.Errorf("%s: %v, %v", page, all, err)
			}
		}
	}
	if files == 0 {
		t.Error("no page has a config.toml")
	}
}

// pages are the project's pages, by their paths from the top.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	top := os.DirFS(filepath.Join("..", ".."))
	for _, part := range []string{"*.md", "cmd/*/*.md", "infra/*.md", "infra/*/*.md", "infra/*/*/*.md"} {
		names, err := fs.Glob(top, part)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := fs.ReadFile(top, name)
			if err != nil {
				t.Fatal(err)
			}
			found[name] = string(text)
		}
	}
	return found
}

// exists reports whether the command and its flags exist. It checks the arguments if there are any, unless
// they stand for something, as NOUN and VERB do.
func exists(args []string) error {
	cmd, rest, err := (&cli{}).root().Find(args)
	if err != nil {
		return err
	}
	rest = slices.DeleteFunc(rest, func(arg string) bool { return arg == "--help" })
	if len(rest) > 0 {
		name, is := strings.CutPrefix(rest[len(rest)-1], "--")
		if flag := cmd.Flag(name); is && flag != nil && flag.NoOptDefVal == "" { // its value is left out
			rest = append(rest, "1")
		}
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	rest = cmd.Flags().Args()
	if len(rest) == 0 || rest[0] == strings.ToUpper(rest[0]) {
		return nil
	}
	return cmd.ValidateArgs(rest)
}

func isNoun(root *cobra.Command, name string) bool {
	return slices.ContainsFunc(root.Commands(), func(cmd *cobra.Command) bool {
		return cmd.Name() == name && cmd.HasSubCommands()
	})
}

// tokenturnCommands gives the arguments of each tokenturn command in the text of a shell. A
// <placeholder> is one word.
func tokenturnCommands(shell string) (commands [][]string) {
	shell = strings.ReplaceAll(shell, "\\\n", " ")
	shell = placeholder.ReplaceAllString(shell, "placeholder")
	started := false
	for _, word := range wordOfShell.FindAllString(shell, -1) {
		switch {
		case strings.HasPrefix(word, "#") || operatorOfShell.MatchString(word):
			started = false
		case started:
			last := len(commands) - 1
			commands[last] = append(commands[last], strings.NewReplacer(`"`, "", "'", "").Replace(word))
		case word == "tokenturn" || word == "./cmd/tokenturn":
			commands, started = append(commands, []string{}), true
		}
	}
	return commands
}

var (
	placeholder = regexp.MustCompile(`<[A-Za-z][^<>|\n]*>`)
	// A comment, an operator or the end of a line, or a word with its quoted parts.
	wordOfShell     = regexp.MustCompile(`#[^\n]*|[|&;<>()\n]+|(?:"[^"]*"|'[^']*'|[^\s"'|&;<>()])+`)
	operatorOfShell = regexp.MustCompile(`^[|&;<>()\n]`)
)

func TestTokenturnCommands(t *testing.T) {
	const shell = "$ A=1 tokenturn app set x < tokenturn.json || echo 'tokenturn x'\n" +
		"for n in $(jq . | sort); do\n" +
		"    go run ./cmd/tokenturn connection invite \"$n\" --expires 'a b' \\\n --x <some name> # tokenturn\n" +
		"tokenturn --version; tokenturn fsck&"
	want := [][]string{{"app", "set", "x"}, {"connection", "invite", "$n", "--expires", "a b", "--x", "placeholder"},
		{"--version"}, {"fsck"}}
	if got := tokenturnCommands(shell); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q", got)
	}
}
