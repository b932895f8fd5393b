package infra_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/infra/test/markdown"
)

var updateRemedies = flag.Bool("update-remedies", false, "write remedies.md again, and keep the tests in it")

// remedyPage lists every text that tells a person to run a command, and the test that runs it.
const remedyPage = "remedies.md"

// remedy is a command that a text of the program or of a runbook tells a person to run.
type remedy struct {
	file    string // in which the text is, from the top
	command string // such as connection invite
	text    string // that names it, in short
	before  string // all of the text before the command
}

// namedCommand is a command in a text. In help texts, quotation marks are around commands that are only
// mentioned.
var namedCommand = regexp.MustCompile(`(^|[^"\w/])tokenturn(?: --[a-z]+ [\w%\[\]…]+)* (` +
	`(?:app|connection|invitation|token|profile|config) [a-z%-]+|setup|serve|console|doctor|fsck|worker)\b[^` + "`" +
	`;,()<"\n]*`)

// pageCommand is how the pages of the console name the command, which has flags on some installations.
var pageCommand = regexp.MustCompile(`\{\{\$?\.Command\}\} |\{\{template "\w+" \(printf "%s `)

// remedies collects the texts in their order.
func remedies(t *testing.T) (all []remedy) {
	t.Helper()
	for _, dir := range []string{"cmd", "functions", "pkg", "infra/runbooks"} {
		err := filepath.WalkDir(filepath.Join(top, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			file, err := filepath.Rel(top, path)
			switch {
			case err != nil:
				return err
			case strings.HasSuffix(path, "_test.go"):
			case strings.HasSuffix(path, ".go"):
				for _, text := range textsOf(t, path) {
					all = append(all, remediesIn(file, text)...)
				}
			case strings.HasSuffix(path, ".html"):
				for _, r := range remediesIn(file, pageCommand.ReplaceAllString(read(t, path), "\ntokenturn ")) {
					if strings.Contains(r.command, " ") { // not the name of the page
						r.before = ""
						all = append(all, r)
					}
				}
			case strings.HasSuffix(path, ".md") && dir == "infra/runbooks":
				_, spans := markdown.Code(read(t, path))
				for _, span := range spans { // deploylocal runs the blocks
					all = append(all, remediesIn(file, span)...)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// textsOf are the strings of a Go file, joined where they are joined there. What is not known before the
// program runs is an ellipsis. Examples in help texts are no remedies.
func textsOf(t *testing.T, path string) (texts []string) {
	t.Helper()
	file, err := parser.ParseFile(gotoken.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			name, _ := n.Type.(*ast.Ident)
			return name == nil || name.Name != "example"
		case *ast.BinaryExpr:
			if n.Op == gotoken.ADD {
				texts = append(texts, joined(n))
				return false
			}
		case *ast.BasicLit:
			texts = append(texts, joined(n))
		}
		return true
	})
	return texts
}

func joined(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return joined(e.X) + joined(e.Y)
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil && e.Kind == gotoken.STRING {
			return text
		}
	}
	return "…"
}

func remediesIn(file, text string) (all []remedy) {
	last := 0
	for _, at := range namedCommand.FindAllStringSubmatchIndex(text, -1) {
		start := at[3]
		before := text[last:start]
		before = before[strings.LastIndexAny(before, ";.\n>")+1:]
		command, _, _ := strings.Cut(text[start:at[1]], ". ")
		all = append(all, remedy{file, text[at[4]:at[5]], short(before + command), text[:start]})
		last = at[1]
	}
	return all
}

// short is a text in one line, with an ellipsis for each blank.
func short(text string) string {
	text = blank.ReplaceAllString(strings.NewReplacer("|", "/", "`", "", "<", "").Replace(text), "…")
	return strings.Trim(strings.Join(strings.Fields(text), " "), ",: ")
}

var blank = regexp.MustCompile(`%\[?\d*\]?[swqdv]|\{\{[^}]*\}\}|…+`)

// TestEveryRemedyHasATest wants a test for each text that tells a person to run a command. After changing
// such a text, write the page again with
//
//	go test ./infra/test -run TestEveryRemedyHasATest -update-remedies
//
// and assign a test to each new row.
func TestEveryRemedyHasATest(t *testing.T) {
	all, page := remedies(t), read(t, remedyPage)
	head, _, _ := strings.Cut(page, "| # |")
	var want strings.Builder
	want.WriteString(head + "| # | text | in | test |\n| --- | --- | --- | --- |\n")
	tests := assignedTests(page)
	for i, r := range all {
		test := "none"
		if assigned := tests[r.row()]; len(assigned) > 0 {
			test, tests[r.row()] = assigned[0], assigned[1:]
		}
		if test == "none" {
			test = r.script(t)
		}
		fmt.Fprintf(&want, "| %d | %s | %s |\n", i+1, r.row(), test)
		if err := r.testedBy(t, test); err != nil {
			t.Errorf("%d: %s: %s: %v", i+1, r.file, r.text, err)
		}
	}
	if *updateRemedies {
		if err := os.WriteFile(remedyPage, []byte(want.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if want.String() != page {
		t.Errorf("%s is not what the texts are; write it again as the comment of this test says", remedyPage)
	}
}

// row is the remedy in the table, without its number and its test.
func (r remedy) row() string {
	return fmt.Sprintf("%s | `%s`", r.text, r.file)
}

// assignedTests are the tests in the rows of the page, by row.
func assignedTests(page string) map[string][]string {
	tests := map[string][]string{}
	for line := range strings.Lines(page) {
		if cells := strings.Split(strings.Trim(line, "| \n"), " | "); len(cells) == 4 {
			row := cells[1] + " | " + cells[2]
			tests[row] = append(tests[row], cells[3])
		}
	}
	return tests
}

const scripts = "cmd/tokenturn/testdata/script"

// script is a script that runs the command, to be assigned to a new row.
func (r remedy) script(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, scripts, "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if test := "`" + filepath.Base(file) + "`"; r.testedBy(t, test) == nil {
			return test
		}
	}
	return "none"
}

// testedBy is an error if test does not run the command of r.
func (r remedy) testedBy(t *testing.T, test string) error {
	t.Helper()
	where, name, _ := strings.Cut(strings.Trim(test, "`"), "` ")
	switch {
	case test == "only mentioned":
		return nil
	case strings.HasSuffix(where, ".txtar"):
		for _, line := range scriptRemedy.FindAllStringSubmatch(read(t, filepath.Join(top, scripts, where)), -1) {
			_, after, found := strings.Cut(r.before, line[1])
			found = found && len(line[1]) > 6 // fewer letters are in many texts
			if found && !namedCommand.MatchString(after) || name == "after \""+line[1]+"\"" {
				return nil
			}
		}
		return fmt.Errorf("%s has no `remedy` with words that come before this command", where)
	case where == deployLocal:
		for _, page := range runbookPages(t) {
			blocks, _ := markdown.Code(read(t, page))
			for _, block := range blocks {
				if strings.Contains(block.Text, r.command) {
					return nil
				}
			}
		}
		return fmt.Errorf("no runbook has %s", r.command)
	case strings.HasPrefix(name, "Test"):
		files, err := filepath.Glob(filepath.Join(top, where, "*_test.go"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if strings.Contains(read(t, file), "func "+name+"(") {
				return nil
			}
		}
		return fmt.Errorf("%s has no %s", where, name)
	}
	return fmt.Errorf("no test runs the command; assign one in %s", remedyPage)
}

// scriptRemedy is a line of a script that runs the command after some words of a text.
var scriptRemedy = regexp.MustCompile(`(?m)^remedy \d+ \S+ '([^'\n]+)'`)

// deployLocal runs the blocks of the runbooks.
const deployLocal = "infra/test/deploylocal"

func runbookPages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob(filepath.Join(top, "infra/runbooks/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

func TestEveryRunbookIsFollowed(t *testing.T) {
	list := read(t, filepath.Join(top, deployLocal, "runbooks.go"))
	for _, page := range runbookPages(t) {
		if name := filepath.Base(page); name != "README.md" && !strings.Contains(list, `page: "`+name+`"`) {
			t.Errorf("%s does not follow %s", deployLocal, name)
		}
	}
}
