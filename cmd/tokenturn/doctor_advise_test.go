package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The README has the same tables, with the same sources.
func TestAdviceIsInTheREADME(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	row := func(cells ...string) {
		t.Helper()
		if line := "| " + strings.Join(cells, " | ") + " |"; !strings.Contains(string(text), line) {
			t.Errorf("the README lacks this row:\n%s", line)
		}
	}
	source := func(address string) string {
		return fmt.Sprintf("[%s](%s)", address[strings.LastIndex(address, "/")+1:], address)
	}
	for _, a := range accessAdvice {
		row(a.Case, strings.ReplaceAll(string(a.Access), "_", " "), a.Advice, source(a.Source))
	}
	for _, d := range accessDifferences {
		row(d.Question, d.User, d.ServiceAccount, source(d.Source))
	}
}
