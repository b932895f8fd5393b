package infra_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tokenturn/tokenturn/infra/test/markdown"
)

// snippetPages are what a person reads first. TestCommandsOnPages of cmd/tokenturn parses the tokenturn
// commands of all pages.
var snippetPages = []string{"README.md", "infra/examples/README.md"}

// fragment is put around a Go block without a package clause: a function body, with the imports that
// its reader has to choose. An import or a variable that the fragment does not use is no error.
const fragment = `package fragment

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/ensure"
)

func _(ctx context.Context, client *secretsmanager.Client, name string) {
	{
		BODY
	}
}
`

// Every Go block on the pages has the right types as it stands, and so has each call of our packages in
// the text. Every error that a page names exists.
func TestGoOnPages(t *testing.T) {
	compiled := compiledPackages(t, fragment)
	checked := 0
	check := func(page, source string) {
		checked++
		whole := source
		if !strings.HasPrefix(source, "package ") {
			whole = strings.Replace(fragment, "BODY", source, 1)
		}
		for _, err := range typeErrors(compiled, whole) {
			t.Errorf("%s: %v\n%s", page, err, source)
		}
	}
	for _, page := range snippetPages {
		blocks, spans := markdown.Code(read(t, filepath.Join(top, page)))
		for _, block := range blocks {
			if block.Language == "go" {
				check(page, block.Text)
			}
		}
		for _, span := range spans {
			if errorName.MatchString(span) {
				span = "tokensource." + span
			}
			if ourSelector.MatchString(span) {
				if !strings.HasSuffix(span, ")") {
					span = "_ = " + span
				}
				check(page, span)
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d snippets are found", checked)
	}
	for _, wrong := range []string{"client.Get()", "x := tokensource.Nothing", "package p\n\nvar x int = true", "if {"} {
		if !strings.HasPrefix(wrong, "package ") {
			wrong = strings.Replace(fragment, "BODY", wrong, 1)
		}
		if typeErrors(compiled, wrong) == nil {
			t.Errorf("this passes:\n%s", wrong)
		}
	}
}

var (
	errorName   = regexp.MustCompile(`^Err[A-Z]\w+$`)
	ourSelector = regexp.MustCompile(`^(tokensource|ensure)\.[A-Z]\w*(\(.*\))?$`)
)

// compiledPackages gives the packages that a source imports, as the compiler has left them.
func compiledPackages(t *testing.T, source string) types.Importer {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "", source, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}
	for _, imported := range file.Imports {
		args = append(args, strings.Trim(imported.Path.Value, `"`))
	}
	list := exec.CommandContext(t.Context(), "go", args...)
	list.Dir = top
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, export, _ := strings.Cut(strings.TrimSpace(line), " ")
		exports[path] = export
	}
	return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
}

// typeErrors leaves out what only says that something is not used.
func typeErrors(packages types.Importer, source string) (found []error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "", source, 0)
	if err != nil {
		return []error{err}
	}
	checker := types.Config{Importer: packages, Error: func(err error) {
		if err, is := err.(types.Error); !is || !err.Soft {
			found = append(found, err)
		}
	}}
	_, _ = checker.Check("fragment", files, []*ast.File{file}, nil) // Error has its errors
	return found
}

// parsers read a program from standard input and end with 0 if its syntax is right, or with
// cannotParse if this version of the tool has no parser for it.
var parsers = map[string][]string{
	"python":     {"python3", "-c", "import ast, sys; ast.parse(sys.stdin.read())"},
	"sh":         {"bash", "-n"},
	"typescript": {"node", "-e", stripTypes},
}

// Node.js can parse TypeScript from version 22.13 on.
const stripTypes = `const strip = require("node:module").stripTypeScriptTypes;
process.removeAllListeners("warning");
if (!strip) process.exit(69);
strip(require("node:fs").readFileSync(0, "utf8"));`

const cannotParse = 69

// formats check blocks that are no programs.
var formats = map[string]func(string) error{
	"json": func(text string) error { return json.Unmarshal([]byte(text), new(any)) },
	"yaml": func(text string) error {
		documents := yaml.NewDecoder(strings.NewReader(text))
		for {
			if err := documents.Decode(new(any)); err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				return err
			}
		}
	},
	"ini": func(text string) error { // as systemd reads it
		for line := range strings.Lines(text) {
			if !unitLine.MatchString(strings.TrimSpace(line)) {
				return fmt.Errorf("this is no line of a unit: %s", line)
			}
		}
		return nil
	},
}

var unitLine = regexp.MustCompile(`^(|\[\w+\]|\w+=.*)$`)

// The other programs on the pages, and the example files, have no mistakes in their syntax. (make conformance
// compiles the TypeScript with tsc, and runs all example files.)
func TestSyntaxOfOtherLanguages(t *testing.T) {
	type program struct{ where, language, text string }
	var programs []program
	for _, page := range pages(t) {
		blocks, _ := markdown.Code(read(t, filepath.Join(top, page)))
		for _, block := range blocks {
			if parsers[block.Language] != nil {
				programs = append(programs, program{page, block.Language, block.Text})
			} else if check := formats[block.Language]; check != nil {
				if err := check(block.Text); err != nil {
					t.Errorf("%s: %v\n%s", page, err, block.Text)
				}
			} else if !slices.Contains([]string{"", "text", "go", "toml"}, block.Language) { // toml: cmd/tokenturn
				t.Errorf("%s: no test checks blocks in %s", page, block.Language)
			}
		}
	}
	for path, language := range map[string]string{"bash/procore.sh": "sh", "python/procore.py": "python",
		"typescript/procore.mts": "typescript"} {
		path = filepath.Join("infra/examples", path)
		programs = append(programs, program{path, language, read(t, filepath.Join(top, path))})
	}
	for language := range parsers {
		t.Run(language, func(t *testing.T) {
			parse := func(text string) (exit int, output string) {
				parser := exec.CommandContext(t.Context(), parsers[language][0], parsers[language][1:]...)
				parser.Stdin = strings.NewReader(text)
				out, err := parser.CombinedOutput()
				if parser.ProcessState == nil {
					t.Skipf("NOT CHECKED: %v", err)
				}
				return parser.ProcessState.ExitCode(), string(out)
			}
			if exit, output := parse("(((\n"); exit == cannotParse {
				t.Skipf("NOT CHECKED: this %s cannot parse %s", parsers[language][0], language)
			} else if exit == 0 {
				t.Errorf("a mistake is not found: %s", output)
			}
			for _, program := range programs {
				if program.language != language {
					continue
				}
				if exit, output := parse(program.text); exit != 0 {
					t.Errorf("%s: exit code %d, %s\n%s", program.where, exit, output, program.text)
				}
			}
		})
	}
}

// Each `make TARGET` on a page is a target of the Makefile.
func TestMakeTargetsOnPages(t *testing.T) {
	targets := regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(read(t, filepath.Join(top, "Makefile")), -1)
	for _, page := range pages(t) {
		blocks, code := markdown.Code(read(t, filepath.Join(top, page)))
		for _, block := range blocks {
			code = append(code, strings.Split(block.Text, "\n")...)
		}
		for _, line := range code {
			target := regexp.MustCompile(`^\s*(?:\$ )?make ([a-z-]+)`).FindStringSubmatch(line)
			if target != nil && !slices.ContainsFunc(targets, func(found []string) bool { return found[1] == target[1] }) {
				t.Errorf("%s: the Makefile has no target %s", page, target[1])
			}
		}
	}
}

// What `make test` leaves out of its run with the race detector, it runs without it: each name in
// one of these lists is the beginning of a test in a package of the line that runs the list.
func TestMakefileNamesTests(t *testing.T) {
	makefile := read(t, filepath.Join(top, "Makefile"))
	declared := map[string][]string{} // directories
	for _, path := range goFiles(t) {
		for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)\(t `).FindAllStringSubmatch(read(t, path), -1) {
			dir := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), top+"/")
			declared[found[1]] = append(declared[found[1]], "./"+dir)
		}
	}
	for _, list := range []string{"LONG", "PLAIN", "PROGRAMS", "SCRIPTS"} {
		names := regexp.MustCompile(`(?m)^` + list + ` := (.+)$`).FindStringSubmatch(makefile)
		run := regexp.MustCompile(`(?m)^\t.*go test -vet=off .*-run '[^']*\$\(` + list + `\)[^']*' (.+)$`).
			FindStringSubmatch(makefile)
		skipped := strings.Contains(makefile, "-skip '$(LONG)|$(PLAIN)|$(PROGRAMS)|$(SCRIPTS)' $$(go list ./... | ")
		if names == nil || run == nil || !skipped {
			t.Fatalf("%s: no list, or no line that runs it", list)
		}
		tests, scripts, _ := strings.Cut(names[1], "/^(")
		for name := range strings.SplitSeq(strings.ReplaceAll(tests, "$$", ""), "|") {
			found := false
			for test, dirs := range declared {
				found = found || strings.HasPrefix(test, name) && slices.ContainsFunc(dirs, func(dir string) bool {
					return matches(dir, strings.Fields(run[1])...)
				})
			}
			if !found {
				t.Errorf("%s: no test in %s begins with %s", list, run[1], name)
			}
		}
		for name := range strings.SplitSeq(strings.TrimSuffix(scripts, ")"), "|") {
			if name != "" {
				glob(t, "cmd/tokenturn/testdata/script/"+name+"*.txtar")
			}
		}
	}
}

// Each test that the README names exists, above all those of its track record.
func TestTestsInReadme(t *testing.T) {
	declared := map[string]bool{}
	for _, path := range goFiles(t) {
		if !strings.HasSuffix(path, "_test.go") {
			continue
		}
		for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(read(t, path), -1) {
			declared[found[1]] = true
		}
	}
	named := regexp.MustCompile(`\bTest[A-Z]\w*`).FindAllString(read(t, filepath.Join(top, "README.md")), -1)
	for _, name := range named {
		if !declared[name] {
			t.Errorf("there is no test %s", name)
		}
	}
	if len(named) < 50 {
		t.Errorf("only %d tests are found in the README", len(named))
	}
}

// Each path that these pages name exists, from the top or from the page. (TestLinksOfThePages checks what
// they link to.)
func TestPathsOnPages(t *testing.T) {
	path := regexp.MustCompile("(?m)(?:^|[=\\s`'(])(?:\\./)?((?:cmd|events|functions|infra|pkg)/[\\w./*-]*\\w)")
	named := 0
	for _, page := range snippetPages {
		text := read(t, filepath.Join(top, page))
		var paths []string
		for _, found := range path.FindAllStringSubmatch(text, -1) {
			paths = append(paths, found[1])
		}
		_, spans := markdown.Code(text)
		paths = append(paths, slices.DeleteFunc(spans, func(span string) bool { return !atTop.MatchString(span) })...)
		for _, path := range paths {
			named++
			found, err := filepath.Glob(filepath.Join(top, path))
			beside, _ := filepath.Glob(filepath.Join(top, filepath.Dir(page), path))
			if err != nil || len(found)+len(beside) == 0 {
				t.Errorf("%s: there is no %s", page, path)
			}
		}
	}
	if named < 40 {
		t.Errorf("only %d paths are found", named)
	}
}

// pages are all pages of the project, by their paths from the top.
func pages(t *testing.T) (found []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "*/*.md", "*/*/*.md", "*/*/*/*.md"} {
		names, err := fs.Glob(os.DirFS(top), pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !strings.HasPrefix(name, "build/") && !strings.Contains(name, "node_modules/") {
				found = append(found, name)
			}
		}
	}
	if len(found) < 15 {
		t.Fatalf("pages %v", found)
	}
	return found
}

// goFiles are the Go files of the project, by their paths from here.
func goFiles(t *testing.T) (paths []string) {
	t.Helper()
	for _, dir := range goDirectories(t) {
		found, err := filepath.Glob(filepath.Join(top, dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	return paths
}
