package infra_test

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

const maxLine = 120

// Go lines have at most 120 characters. Raw string literals, struct tags among them, do not count:
// they cannot be broken.
func TestGoLines(t *testing.T) {
	for _, path := range goFiles(t) {
		for _, line := range longLines(t, read(t, path)) {
			t.Errorf("%s:%d: more than %d characters", path, line, maxLine)
		}
	}
}

func TestLongLinesAreFound(t *testing.T) {
	short, long := strings.Repeat("ä", maxLine-3), strings.Repeat("a", maxLine)
	source := "package p\n\n// " + short + "\n// " + long + "\n\nvar x = `" + long + "\n" + long + "\n` // " + long +
		"\n\ntype y struct {\n\tz int `" + long + "`\n\tu int // " + long + "\n}\n\nvar v = \"" + long + "\"\n"
	if found := longLines(t, source); !slices.Equal(found, []int{4, 8, 12, 15}) {
		t.Errorf("found lines %v", found)
	}
}

// longLines gives the numbers of the lines that are too long without their raw string literals.
func longLines(t *testing.T, source string) (numbers []int) {
	t.Helper()
	short := []byte(source)
	literals(t, source, func(offset int, literal string) {
		if literal[0] != '`' {
			return
		}
		// The scanner leaves out carriage returns, which the formatted files do not have.
		for i := range literal {
			if short[offset+i] != '\n' {
				short[offset+i] = 0
			}
		}
	})
	for i, line := range strings.Split(strings.ReplaceAll(string(short), "\x00", ""), "\n") {
		if utf8.RuneCountInString(line) > maxLine {
			numbers = append(numbers, i+1)
		}
	}
	return numbers
}

// literals calls do with every string literal of a Go file, as it stands there.
func literals(t *testing.T, source string, do func(offset int, literal string)) {
	t.Helper()
	files := token.NewFileSet()
	file := files.AddFile("", -1, len(source))
	var s scanner.Scanner
	s.Init(file, []byte(source), nil, 0)
	for {
		switch pos, kind, literal := s.Scan(); kind {
		case token.EOF:
			if s.ErrorCount > 0 {
				t.Fatal("this is not Go:\n", source)
			}
			return
		case token.STRING:
			do(file.Offset(pos), literal)
		}
	}
}

// oldWords are outdated English, terms of this project that standard ones have replaced, and "by itself",
// for which texts say "automatically".
var oldWords = regexp.MustCompile(`(?i)\b(anew|told of|lest|\w*manieth|whoever|heed(s|ed|ing)?|mishaps?|teeth|` +
	`desks?|stations?|by itself|untold|keepers?|vaults?|residues?|overtaken|whose)\b`)

// contracts are names that contain an old word and must stay as they are.
var contracts = strings.NewReplacer(
	`json:"untold,omitempty"`, "", // a stored field
	`"vault versions"`, "", // the keys of the embedded store are derived from it
)

// Texts that users see are in plain words.
func TestUsersReadPlainWords(t *testing.T) {
	texts := userTexts(t)
	for where, text := range texts {
		for _, found := range oldWords.FindAllString(contracts.Replace(text), -1) {
			t.Errorf("%s: %q in\n%s", where, found, text)
		}
	}
	if len(texts) < 5000 {
		t.Errorf("only %d texts are found", len(texts))
	}
	for _, text := range []string{"It is told of once", "every so manieth", "Whoever has it", "heeds", "a desk"} {
		if !oldWords.MatchString(text) {
			t.Errorf("%q passes", text)
		}
	}
}

// userTexts are, by where they are, the pages, templates and settings line by line, and the string literals of the
// programs and packages.
func userTexts(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	add := func(path string, number int, text string) {
		texts[strings.TrimPrefix(path, top+"/")+":"+strconv.Itoa(number)] = text
	}
	for _, path := range slices.Concat(pages(t), glob(t, "template.yaml", "infra/*.yaml", "infra/*.toml",
		"infra/examples/*.yaml", "infra/examples/*/*.*", "pkg/consent/pages/*.html")) {
		for i, line := range strings.Split(read(t, filepath.Join(top, path)), "\n") {
			add(path, i+1, line)
		}
	}
	for _, path := range goFiles(t) {
		part := strings.TrimPrefix(filepath.ToSlash(path), top+"/")
		if strings.HasPrefix(part, "infra/") || strings.HasPrefix(part, "events/") || strings.HasSuffix(part, "_test.go") {
			continue
		}
		source := read(t, path)
		literals(t, source, func(offset int, literal string) {
			add(path, 1+strings.Count(source[:offset], "\n"), literal)
		})
	}
	return texts
}

// Comments and names, those of tests among them, are in the same words.
func TestCodeIsInPlainWords(t *testing.T) {
	files := token.NewFileSet()
	for _, path := range goFiles(t) {
		if strings.HasSuffix(path, "infra/test/style_test.go") {
			continue // the list itself
		}
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		complain := func(at token.Pos, text string, except ...string) {
			for _, found := range oldWords.FindAllString(text, -1) {
				if !slices.Contains(except, strings.ToLower(found)) {
					t.Errorf("%s: %q in %q", files.Position(at), found, text)
				}
			}
		}
		for _, group := range file.Comments {
			complain(group.Pos(), strings.TrimPrefix(group.Text(), "Whose returns"), "by itself")
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if name, ok := n.(*ast.Ident); ok && !vaultKey.MatchString(name.Name) {
				complain(name.Pos(), spaced(name.Name), "whose")
			}
			return true
		})
	}
}

// vaultKey is the name of an output and of the setting that it gives.
var vaultKey = regexp.MustCompile(`[vV]aultKey`)

// ends are where a word of a name ends and the next one begins.
var ends = []*regexp.Regexp{regexp.MustCompile("([a-z0-9])([A-Z])"), regexp.MustCompile("([A-Z])([A-Z][a-z])")}

func spaced(name string) string {
	for _, end := range ends {
		name = end.ReplaceAllString(name, "$1 $2")
	}
	return name
}

func glob(t *testing.T, patterns ...string) (found []string) {
	t.Helper()
	for _, pattern := range patterns {
		names, err := fs.Glob(os.DirFS(top), pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v, %v", pattern, names, err)
		}
		found = append(found, names...)
	}
	return found
}
