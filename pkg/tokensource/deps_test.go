package tokensource_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

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
