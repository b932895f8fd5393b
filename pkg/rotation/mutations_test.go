//go:build mutations

package rotation_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// removal takes one rule of the protocol out of a function.
type removal struct {
	name    string // what is wrong then
	file    string // in this package, or relative to it
	with    string // occurs once in the file, within one function
	without string
	timing  bool // only an order of events shows it: the explorer must see it as well
}

var thorough = flag.Bool("thorough", false, "let the explorer look at every rule")

// TestEveryRuleIsNeeded takes one rule after the other out of the source and runs
// the tests of meaning on what is left: one of them must fail. The explorer must
// also find the rules that concern timing. Golden traces and lists that failed once are no
// proof, because they are recorded from the engine.
func TestEveryRuleIsNeeded(t *testing.T) {
	tried := removals
	if testing.Short() {
		tried = removals[:10]
	}
	binaries := map[string]string{}
	for _, r := range tried {
		if dir := filepath.Dir(r.file); binaries[dir] == "" {
			binaries[dir] = compile(t, dir, removals)
		}
	}
	rows := make([]string, len(tried))
	t.Run("an engine in which", func(t *testing.T) {
		for i, r := range tried {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				binary := binaries[filepath.Dir(r.file)]
				meaning, _ := r.fails(t, binary, "-test.skip="+noMeaning+"|"+askedLast)
				if meaning == "" {
					meaning, _ = r.fails(t, binary, "-test.run="+askedLast)
				}
				explored := "-"
				if r.timing || *thorough && filepath.Dir(r.file) == "." {
					scenario, invariant := r.fails(t, binary, "-test.run="+explorer, "-test.parallel=1")
					if scenario == "" && r.timing {
						t.Error("the explorer notices nothing")
					}
					explored = strings.TrimPrefix(scenario+": "+invariant, ": ")
				}
				if meaning == "" {
					t.Error("no test of meaning fails")
				}
				rows[i] = fmt.Sprintf("%-78s | %-70s | %s", r.name, meaning, explored)
			})
		}
	})
	rows = slices.DeleteFunc(rows, func(row string) bool { return row == "" }) // not run
	t.Logf("%-78s | %-70s | explorer\n%s", "what is wrong then", "test of meaning", strings.Join(rows, "\n"))
}

const (
	// explorer tries every single fault and switch on the server that Procore most probably is.
	explorer = "^TestEveryFaultIsSurvived$/^on_a_server_that$/^ends_the_old_pair_at_once$"
	// noMeaning are the tests that say nothing about what a rule is for.
	noMeaning = "^TestEveryFaultIsSurvived$|^TestListsThatFailedOnce$|^TestThirtyDaysWithFaults$|^TestTraces$|" +
		"^TestEveryRuleIsNeeded$|^Fuzz"
	// askedLast are the tests of meaning that take seconds.
	askedLast = "^TestOneFailureCostsReadersMinutesAtMost$|^TestABacklogHoldsUpNeitherConsentsNorReaders$|" +
		"^TestAMonthWithoutFaults$|^TestClocksThatStayApartAreOneNoticeADay$|^TestReadersAlwaysFindALivingToken$"
)

// ruleVariable names the rule that a test binary goes without, by its place in the list.
const ruleVariable = "TOKENTURN_WITHOUT_RULE"

// compile builds the tests of a package with every removal in it: each changed
// function is there a second time, and the original calls that one if its rule is
// the one to go without. The tree itself stays as it is; the compiler gets the
// changes as an overlay.
func compile(t *testing.T, dir string, removals []removal) (binary string) {
	t.Helper()
	sources := map[string]string{} // by path
	for i, r := range removals {
		if filepath.Dir(r.file) != dir {
			continue
		}
		path, err := filepath.Abs(r.file)
		must(t, err)
		original, err := os.ReadFile(path)
		must(t, err)
		found := inAnyLines(r.with).FindAllString(string(original), -1)
		if len(found) != 1 {
			t.Errorf("what is to be taken out of %s occurs there %d times; the list must follow the engine:\n%s",
				r.file, len(found), r.with)
			continue
		}
		r.with = found[0]
		if sources[path] == "" {
			sources[path] = string(original)
		}
		sources[path], err = r.added(sources[path], string(original), i)
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
	}
	temp := t.TempDir()
	overlay := map[string]string{}
	for path, source := range sources {
		overlay[path] = filepath.Join(temp, filepath.Base(path))
		must(t, os.WriteFile(overlay[path], []byte(source), 0o600))
		extra := filepath.Join(filepath.Dir(path), "without_rule.go")
		overlay[extra] = filepath.Join(temp, "without_rule.go")
		name := regexp.MustCompile(`(?m)^package (\w+)`).FindStringSubmatch(source)[1]
		variable := fmt.Appendf(nil, "package %s\n\nimport \"os\"\n\nvar withoutRule = os.Getenv(%q)\n", name, ruleVariable)
		must(t, os.WriteFile(overlay[extra], variable, 0o600))
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": overlay})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(temp, "overlay.json"), text, 0o600))
	binary = filepath.Join(temp, "without.test")
	tags := "-tags=explore"
	if testing.Short() {
		tags = "-tags=" // of the first ten the explorer's quick part finds what it has to
	}
	build := exec.CommandContext(t.Context(), "go", "test", "-c", tags, "-ldflags=-s -w",
		"-overlay", filepath.Join(temp, "overlay.json"), "-o", binary, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("without these rules %s does not compile: %v\n%s", dir, err, out)
	}
	return binary
}

// inAnyLines matches a text of the source however its lines are broken.
func inAnyLines(text string) *regexp.Regexp {
	lead, tail := "", ""
	switch {
	case strings.HasPrefix(text, "\n"):
		lead = `\n\t*`
	case strings.HasPrefix(text, "\t"):
		lead = `\t+`
	}
	if strings.HasSuffix(text, "\n") {
		tail = `\n`
	}
	words := strings.Fields(text)
	for i, word := range words {
		words[i] = regexp.QuoteMeta(word)
	}
	return regexp.MustCompile(lead + strings.Join(words, `\s+(?:" \+\s+")?`) + tail)
}

// added gives the source with the changed function beside the one in the original,
// and a call of it there.
func (r removal) added(source, original string, i int) (string, error) {
	changed := strings.Replace(original, r.with, r.without, 1)
	at := strings.Index(original, r.with)
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, r.file, changed, parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}
	for _, decl := range file.Decls {
		f, isFunc := decl.(*ast.FuncDecl)
		offset := func(p token.Pos) int { return files.Position(p).Offset }
		if !isFunc || at < offset(f.Body.Lbrace) || at >= offset(f.End()) {
			continue
		}
		twin := f.Name.Name + "Without" + strconv.Itoa(i)
		head := changed[offset(f.Pos()):offset(f.Name.Pos())]
		body := head + twin + changed[offset(f.Name.End()):offset(f.End())]
		call := twin + "(" + arguments(f.Type) + ")"
		if f.Recv != nil {
			call = f.Recv.List[0].Names[0].Name + "." + call
		}
		if f.Type.Results != nil {
			call = "return " + call
		} else {
			call += "; return"
		}
		signature := changed[offset(f.Pos()) : offset(f.Body.Lbrace)+1]
		guard := fmt.Sprintf("\n\tif withoutRule == %q { %s }", strconv.Itoa(i), call)
		return strings.Replace(source, signature, signature+guard, 1) + "\n" + body + "\n", nil
	}
	return "", fmt.Errorf("what is to be taken out is in no function")
}

// arguments passes the parameters on.
func arguments(f *ast.FuncType) string {
	var names []string
	for _, field := range f.Params.List {
		for _, name := range field.Names {
			if _, variadic := field.Type.(*ast.Ellipsis); variadic {
				names = append(names, name.Name+"...")
			} else {
				names = append(names, name.Name)
			}
		}
	}
	return strings.Join(names, ", ")
}

// fails runs tests without the rule until one fails, and names it and, if the
// explorer has found it, the invariant that is broken.
func (r removal) fails(t *testing.T, binary string, args ...string) (test, invariant string) {
	t.Helper()
	run := exec.CommandContext(t.Context(), binary, append([]string{"-test.failfast", "-test.timeout=5m"}, args...)...)
	run.Dir = filepath.Dir(r.file)
	i := slices.IndexFunc(removals, func(other removal) bool { return other.name == r.name })
	run.Env = append(os.Environ(), ruleVariable+"="+strconv.Itoa(i))
	out, err := run.CombinedOutput()
	if err == nil {
		return "", ""
	}
	for _, where := range []*regexp.Regexp{failed, running, inTest} {
		for _, match := range where.FindAllStringSubmatch(string(out), -1) {
			test = match[1] // the last one: the subtest
		}
		if test != "" {
			test = strings.TrimPrefix(test, "TestEveryFaultIsSurvived/on_a_server_that/ends_the_old_pair_at_once/")
			return strings.ReplaceAll(test, "_", " "), broken.FindString(string(out))
		}
	}
	t.Fatalf("%v, and no test failed:\n%s", err, out)
	return "", ""
}

var (
	failed  = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+) `)
	running = regexp.MustCompile(`(?m)^running tests:\n\t(\S+) `)
	inTest  = regexp.MustCompile(`(?m)^\S+/rotation(?:_test)?\.(Test\w+)\S*\(`) // a deadlock ends the process
	broken  = regexp.MustCompile(`I\d+ is broken|panicked|no end after|deadlock`)
)
