package markdown_test

import (
	"slices"
	"testing"

	"github.com/tokenturn/tokenturn/infra/test/markdown"
)

func TestCode(t *testing.T) {
	blocks, spans := markdown.Code("Text with `a span\nof two lines`.\n\n    indented \\\n      twice\n\n    again\n\n" +
		"1. An item\n   with `another`:\n\n   ```sh\n   in a list\n\n     deeper\n   ```\n\n" +
		"| `cell` | x |\n```go\nx := 1\n```\n")
	want := []markdown.Block{{Language: "", Text: "indented \\\n  twice\n\nagain\n\n"},
		{Language: "sh", Text: "in a list\n\n  deeper\n"}, {Language: "go", Text: "x := 1\n"}}
	if !slices.Equal(blocks, want) {
		t.Errorf("blocks %q", blocks)
	}
	if !slices.Equal(spans, []string{"a span of two lines", "another", "cell"}) {
		t.Errorf("spans %q", spans)
	}
}
