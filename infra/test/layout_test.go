package infra_test

import (
	"encoding/json"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// An importRule is about all that a package depends on, directly or not. Packages of this module
// begin with "./". A pattern that ends in "/..." also matches what is below.
type importRule struct {
	of    []string // these packages
	never []string // depend on none of these
	but   []string // except on these
	why   string
}

var (
	ours     = []string{"./..."}
	domain   = []string{"./pkg/token", "./pkg/rotation", "./pkg/invitations"}
	adapters = []string{"./pkg/dynamo", "./pkg/secretsmanager", "./pkg/kms", "./pkg/sqs", "./pkg/sns", "./pkg/embedded",
		"./pkg/procore"}
	parts    = []string{"./pkg/config", "./pkg/doctor", "./pkg/fsck", "./pkg/metrics", "./pkg/traces"}
	programs = []string{"./cmd/...", "./functions/..."}
)

// The direction of imports, from bottom to top. ARCHITECTURE.md shows it as a diagram.
var importRules = []importRule{
	{of: []string{"./pkg/token"}, never: ours,
		why: "every layer uses tokens, so they depend on none"},
	{of: []string{"./pkg/rotation"}, never: ours, but: []string{"./pkg/token"},
		why: "the engine declares the ports that it needs and knows no store, no server and no AWS service"},
	{of: []string{"./pkg/logo"}, never: ours,
		why: "it reads one file"},
	{of: []string{"./functions/..."}, never: []string{"./pkg/logo", "image/..."},
		why: "only the operator's command decodes a logo; the callback function serves the result"},
	{of: []string{"./pkg/webpage"}, never: ours,
		why: "the pages of every part have one look, which knows none of them"},
	{of: []string{"./pkg/invitations"}, never: ours, but: []string{"./pkg/token", "./pkg/rotation"},
		why: "the stores keep invitations, and know no page"},
	{of: []string{"./pkg/consent"}, never: ours,
		but: []string{"./pkg/token", "./pkg/rotation", "./pkg/invitations", "./pkg/webpage"},
		why: "the pages use the engine; the engine does not use the pages"},
	{of: adapters, never: ours, but: domain,
		why: "an adapter translates one technology for the domain; only the wiring combines adapters"},
	{of: parts, never: ours, but: slices.Concat(adapters, domain),
		why: "settings, checks and measurements are wired together above, and do not need each other"},
	{of: []string{"./pkg/awsstack", "./pkg/trigger"}, never: ours,
		but: slices.Concat(parts, adapters, domain, []string{"./pkg/release"}),
		why: "the wiring of the functions is the top layer below the programs"},
	{of: []string{"./pkg/lambdahttp", "./pkg/lambdalog", "./pkg/release"}, never: ours,
		why: "edges that know nothing about tokens"},
	{of: []string{"./pkg/console"}, never: ours, but: []string{"./pkg/token", "./pkg/rotation", "./pkg/webpage"},
		why: "it shows what it is given, whatever the stores are, and is apart from the public pages"},
	{of: []string{"./pkg/readapi"}, never: ours, but: []string{"./pkg/token", "./pkg/rotation"},
		why: "it hands on what readers may see, and contains nothing that could open sealed bytes"},
	{of: []string{"./pkg/loopback"}, never: ours, but: []string{"./pkg/token", "./pkg/webpage"},
		why: "it receives a code, which is a secret, and answers with a page"},

	{of: []string{"./pkg/tokensource"}, never: ours, but: []string{"./pkg/token"},
		why: "a reader contains no code that could present a refresh token"},
	{of: []string{"./pkg/tokensource/ensure", "./pkg/tokensource/tokensourcetest"}, never: ours,
		but: []string{"./pkg/token", "./pkg/tokensource"},
		why: "the same; ensure asks the rotate function and does not contain it"},
	{of: []string{"./functions/example-reader"}, never: ours, but: []string{"./pkg/token", "./pkg/tokensource/..."},
		why: "the same, in the program that shows it"},
	{of: []string{"./pkg/tokensource", "./pkg/tokensource/tokensourcetest"}, never: []string{awsServices + "..."},
		but: []string{awsServices + "secretsmanager/...", awsServices + "internal/..."},
		why: "a reader's program is small, and reads a secret only"},

	{of: []string{"./pkg/..."}, never: []string{"./cmd/...", "./functions/...", "./infra/...", "./events/..."},
		why: "packages serve programs and tests, and know neither"},
	{of: programs, never: []string{"./infra/...", "./events/..."},
		why: "no program contains a test rig"},
	{of: programs, never: []string{"./pkg/rotation/rotationtest", "./pkg/invitations/invitationstest",
		"./pkg/tokensource/tokensourcetest", "./pkg/internal/awstest"},
		why: "no program contains test support"},
	{of: []string{"./functions/..."}, never: []string{"./pkg/procore/procoretest"},
		why: "test support too; but `tokenturn serve --demo` needs the stand-in, so the command contains it"},
	{of: programs, never: []string{"testing", "net/http/httptest"},
		why: "the command contains procoretest, which therefore does without Go's packages for tests"},
	{of: []string{"./pkg/procore/procoretest"}, never: ours, but: []string{"./pkg/token", "./pkg/webpage"},
		why: "a stand-in that shared code with pkg/procore would share its mistakes; it shares a look only"},
	{of: []string{"./pkg/rotation/rotationtest"}, never: ours, but: []string{"./pkg/token", "./pkg/rotation"},
		why: "the suites are for every adapter, so they know none"},
	{of: []string{"./pkg/invitations/invitationstest"}, never: ours,
		but: slices.Concat(domain, []string{"./pkg/rotation/rotationtest"}),
		why: "the same"},
	{of: []string{"./pkg/internal/awstest"}, never: ours,
		why: "the tests of every AWS adapter use it"},
}

const awsServices = "github.com/aws/aws-sdk-go-v2/service/"

// The rotate function shows no page and has the credentials of its role. What it does not
// link, it does not start. The tag is that of the Makefile's build.
func TestRotateIsSmall(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", "lambda.norpc",
		"../../functions/rotate").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		for _, unwanted := range []string{"html/template", "text/template", "golang.org/x/net/html", awsServices + "sso",
			awsServices + "ssooidc", awsServices + "sts", "github.com/tokenturn/tokenturn/pkg/consent"} {
			if name == unwanted {
				t.Errorf("functions/rotate links %s", name)
			}
		}
	}
}

// The rules are about the packages as built for this operating system.
func TestImportsKeepToTheLayout(t *testing.T) {
	imports := goList(t)
	for _, rule := range importRules {
		for _, chain := range rule.broken(imports) {
			t.Errorf("%s\n\tThe rule: %s", chain, rule.why)
		}
		for _, pattern := range slices.Concat(rule.of, rule.never, rule.but) {
			if strings.HasPrefix(pattern, "./") && !slices.ContainsFunc(slices.Collect(maps.Keys(imports)),
				func(path string) bool { return matches(path, pattern) }) {
				t.Errorf("no package is %s: %s", pattern, rule.why)
			}
		}
	}
	for _, dir := range goDirectories(t) {
		if !strings.HasPrefix(dir, "pkg/") {
			continue
		}
		if !slices.ContainsFunc(importRules, func(r importRule) bool { return slices.Contains(r.of, "./"+dir) }) {
			t.Errorf("no rule says what %s may import", dir)
		}
	}
}

// Each part of each rule reports a program that breaks it, by way of another package, and accepts
// one that does not.
func TestEveryImportRuleCanFail(t *testing.T) {
	for _, rule := range importRules {
		for _, of := range rule.of {
			of = strings.Replace(of, "...", "new", 1)
			var allowed []string
			for _, but := range rule.but {
				allowed = append(allowed, strings.TrimSuffix(but, "/..."))
			}
			if found := rule.broken(map[string][]string{of: append(allowed, "fmt"), "./some/other": {"./new"}}); found != nil {
				t.Errorf("%s: reports %v", rule.why, found)
			}
			for _, never := range rule.never {
				never = strings.Replace(never, "...", "new", 1)
				found := rule.broken(map[string][]string{of: {"fmt", "between"}, "between": {never}})
				if want := of + " -> between -> " + never; !slices.Equal(found, []string{want}) {
					t.Errorf("%s: reports %v, not %s", rule.why, found, want)
				}
			}
		}
	}
}

// broken gives the shortest chain of imports to each package that the rule forbids.
func (r importRule) broken(imports map[string][]string) (found []string) {
	for from := range imports {
		if !matches(from, r.of...) {
			continue
		}
		chains := map[string]string{from: from}
		for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
			for _, path := range imports[queue[0]] {
				if chains[path] != "" {
					continue
				}
				chains[path] = chains[queue[0]] + " -> " + path
				queue = append(queue, path)
				if matches(path, r.never...) && !matches(path, r.but...) {
					found = append(found, chains[path])
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

func matches(path string, patterns ...string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		above, below := strings.CutSuffix(pattern, "/...")
		return path == above || below && strings.HasPrefix(path, above+"/")
	})
}

// goList gives what each package of the module, and each one that they need, imports outside of tests.
func goList(t *testing.T) map[string][]string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports", "./...")
	list.Dir = top
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	short := func(path string) string { return strings.Replace(path, module+"/", "./", 1) }
	imports := map[string][]string{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var listed struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&listed); err == io.EOF {
			return imports
		} else if err != nil {
			t.Fatal(err)
		}
		for i, path := range listed.Imports {
			listed.Imports[i] = short(path)
		}
		imports[short(listed.ImportPath)] = listed.Imports
	}
}

const module = "github.com/tokenturn/tokenturn"
