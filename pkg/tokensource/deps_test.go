package tokensource_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tokenturn/tokenturn/"

// A program that imports this package must not get code that could spend a refresh token.
func TestImports(t *testing.T) {
	for _, test := range []struct{ of, within string }{
		{".", ""},
		{"./tokensourcetest", module + "pkg/tokensource"},
	} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", test.of).Output()
		if err != nil {
			t.Fatal(err)
		}
		for path := range strings.Lines(string(out)) {
			path = strings.TrimSpace(path)
			if !strings.HasPrefix(path, module) || strings.HasPrefix(path, module+"pkg/tokensource") {
				continue
			}
			if path != module+"pkg/token" {
				t.Errorf("%s imports %s", test.of, path)
			}
		}
		for path := range strings.Lines(string(out)) {
			if service, found := strings.CutPrefix(strings.TrimSpace(path), "github.com/aws/aws-sdk-go-v2/service/"); found &&
				!strings.HasPrefix(service, "secretsmanager") && !strings.HasPrefix(service, "internal/") {
				t.Errorf("%s imports the SDK's %s", test.of, service)
			}
		}
	}
}

// Package oauth2 could redeem tokens; only the types that readers share are used.
func TestUseOfOAuth2(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == "oauth2" &&
				!slices.Contains([]string{"Token", "TokenSource", "HTTPClient"}, selector.Sel.Name) {
				t.Errorf("%s uses oauth2.%s", name, selector.Sel.Name)
			}
			return true
		})
	}
}
