package infra_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../.."

// The map is ARCHITECTURE.md. A path in it exists. A Go name is declared by the Go file that
// comes before it in the same paragraph or row. So nobody is sent to a place that is gone.
func TestTheMapNamesWhatIsThere(t *testing.T) {
	declared := map[string][]string{}
	for _, line := range blocks(mapLines(t)) {
		file := ""
		for _, code := range codeOf(line) {
			switch {
			case isPath(code):
				if found, err := filepath.Glob(filepath.Join(top, code)); err != nil || len(found) == 0 {
					t.Errorf("there is no %s:\n\t%s", code, line)
				}
				file = code
			case !goName.MatchString(code): // a command or a value
			case !strings.HasSuffix(file, ".go"):
				t.Errorf("no Go file comes before %s:\n\t%s", code, line)
			default:
				if declared[file] == nil {
					declared[file] = declarations(t, filepath.Join(top, file))
				}
				if !slices.Contains(declared[file], code) {
					t.Errorf("%s declares no %s:\n\t%s", file, code, line)
				}
			}
		}
	}
}

// Every directory with Go code has one line in the map's table of packages, and every one outside
// of infra in the README's.
func TestTheMapHasEveryPackage(t *testing.T) {
	readme := strings.Split(read(t, filepath.Join(top, "README.md")), "\n")
	lists := map[string]map[string]int{"ARCHITECTURE.md": rowsOf(section(mapLines(t), "## Packages")),
		"README.md": rowsOf(section(readme, "## Project layout"))}
	for page, rows := range lists {
		for _, dir := range goDirectories(t) {
			if n := rows[dir]; n != 1 && (page != "README.md" || !strings.HasPrefix(dir, "infra/")) {
				t.Errorf("the table of packages in %s has %s in %d lines", page, dir, n)
			}
		}
	}
}

// rowsOf counts the rows of a table by what is in their first cell.
func rowsOf(lines []string) map[string]int {
	rows := map[string]int{}
	for _, line := range lines {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, code := range codeOf(cells[1]) {
				rows[strings.TrimSuffix(code, "/")]++
			}
		}
	}
	return rows
}

// What a maintainer asks is answered by two files.
func TestTheMapAnswersInTwoOpens(t *testing.T) {
	questions := 0
	for _, line := range section(mapLines(t), "## Ten questions, two opens each") {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "?") {
			continue
		}
		questions++
		if files := slices.DeleteFunc(codeOf(cells[2]), func(code string) bool { return !isPath(code) }); len(files) != 2 {
			t.Errorf("%s is answered by %d files: %v", strings.TrimSpace(cells[1]), len(files), files)
		}
	}
	if questions != 10 {
		t.Errorf("there are %d questions", questions)
	}
}

// Links of the pages lead to files, and to headings that are there.
func TestLinksOfThePages(t *testing.T) {
	for _, page := range pages(t) {
		page = filepath.Join(top, page)
		for _, link := range links.FindAllStringSubmatch(read(t, page), -1) {
			target, heading, _ := strings.Cut(link[1], "#")
			if strings.Contains(target, ":") {
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s leads to %s: %v", page, link[1], err)
			} else if heading != "" && !slices.Contains(headings(read(t, path)), heading) {
				t.Errorf("%s leads to %s, which has no such heading", page, link[1])
			}
		}
	}
}

var (
	codeSpan = regexp.MustCompile("`([^`]+)`")
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	// goName is a function, such as plan() or Rotator.Do(), or another declaration, such as retryAfter.
	goName = regexp.MustCompile(`^([A-Za-z]\w*\.)?[A-Za-z]\w*(\(\))?$`)
	atTop  = regexp.MustCompile(`^[\w-]+\.(ya?ml|md|mod)$|^(Makefile|LICENSE)$`)
)

// isPath reports whether code is a path from the top, and no path of a URL.
func isPath(code string) bool {
	return atTop.MatchString(code) ||
		strings.Contains(code, "/") && !strings.HasPrefix(code, "/") && !strings.Contains(code, " ")
}

func codeOf(text string) (all []string) {
	for _, found := range codeSpan.FindAllStringSubmatch(text, -1) {
		all = append(all, found[1])
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// mapLines are the lines of the map, without its blocks of code.
func mapLines(t *testing.T) (lines []string) {
	t.Helper()
	block := false
	for line := range strings.Lines(read(t, filepath.Join(top, "ARCHITECTURE.md"))) {
		if strings.HasPrefix(line, "```") {
			block = !block
		} else if !block {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// blocks joins the lines of each paragraph. A row of a table is a block of its own.
func blocks(lines []string) (all []string) {
	before := ""
	for _, line := range lines {
		if before == "" || strings.HasPrefix(line, "|") || strings.HasPrefix(before, "|") {
			all = append(all, line)
		} else if line != "" {
			all[len(all)-1] += " " + line
		}
		before = line
	}
	return all
}

// section gives the lines under a heading, up to the next one of its kind.
func section(lines []string, heading string) []string {
	i := slices.Index(lines, heading)
	if i < 0 {
		return nil
	}
	lines = lines[i+1:]
	if end := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "## ") }); end >= 0 {
		lines = lines[:end]
	}
	return lines
}

// headings of a page, in the form that GitHub gives links to them.
func headings(page string) (all []string) {
	for line := range strings.Lines(page) {
		title, is := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !is || !strings.HasPrefix(line, "#") {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
				return r
			}
			return -1
		}, strings.ToLower(strings.TrimSpace(title)))
		all = append(all, anchor)
	}
	return all
}

// declarations are the names that a Go file declares at its top level. A method is there
// with its receiver's type.
func declarations(t *testing.T, path string) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			name := decl.Name.Name + "()"
			if decl.Recv != nil {
				name = receiver(decl.Recv.List[0].Type) + "." + name
			}
			names = append(names, name)
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, spec.Name.Name)
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

func receiver(of ast.Expr) string {
	switch of := of.(type) {
	case *ast.StarExpr:
		return receiver(of.X)
	case *ast.IndexExpr:
		return receiver(of.X)
	case *ast.Ident:
		return of.Name
	}
	return ""
}

// goDirectories are the directories with Go code, relative to the top.
func goDirectories(t *testing.T) (dirs []string) {
	t.Helper()
	for _, part := range []string{"cmd", "events", "functions", "infra", "pkg"} {
		err := filepath.WalkDir(filepath.Join(top, part), func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && slices.Contains([]string{"testdata", "node_modules"}, entry.Name()):
				return fs.SkipDir
			case filepath.Ext(path) == ".go":
				dir, err := filepath.Rel(top, filepath.Dir(path))
				if err != nil {
					return err
				}
				dirs = append(dirs, filepath.ToSlash(dir))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}
