package main

import (
	"io"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// A table stays a table where it fits, and loses nothing where it does not.
func TestTableFits(t *testing.T) {
	p := painter{on: true}
	list := table{head: []string{"CONNECTION", "STATUS", "COMPANY"}}
	list.row("sandbox/acme", p.paint("active", green), "Hawthorne General, 4264807")
	list.row("sandbox/b", p.paint("needs_consent", red), "-")
	spared := list
	spared.head, spared.spare = []string{"CONNECTION", "EXPIRES", "COMPANY"}, []string{"EXPIRES"}
	facts := table{}
	facts.row("status", "active")
	facts.row("access token expires", "2026-11-28 19:49:05 UTC, in 40m")
	events := table{}
	events.row("2026-11-28 19:49:05 UTC", "1.27", "decided", "the pair of this generation is now the current one")
	for name, test := range map[string]struct {
		table table
		width int
		want  string
	}{
		"any width": {list, 0, "CONNECTION    STATUS         COMPANY\n" +
			"sandbox/acme  \x1b[32mactive\x1b[39m         Hawthorne General, 4264807\n" +
			"sandbox/b     \x1b[31mneeds_consent\x1b[39m  -\n"},
		"blocks": {list, 36, "sandbox/acme\n  status   \x1b[32mactive\x1b[39m\n  company  Hawthorne General,\n" +
			"           4264807\nsandbox/b\n  status   \x1b[31mneeds_consent\x1b[39m\n  company  -\n"},
		"fewer columns": {spared, 40, "CONNECTION    COMPANY\n" +
			"sandbox/acme  Hawthorne General, 4264807\nsandbox/b     -\n"},
		"whole blocks": {spared, 30, "sandbox/acme\n  expires  \x1b[32mactive\x1b[39m\n  company  Hawthorne General,\n" +
			"           4264807\nsandbox/b\n  expires  \x1b[31mneeds_consent\x1b[39m\n  company  -\n"},
		"broken lines": {facts, 50, "status                active\n" +
			"access token expires  2026-11-28 19:49:05 UTC, in\n                      40m\n"},
		"below": {events, 50, "2026-11-28 19:49:05 UTC  1.27  decided\n" +
			"    the pair of this generation is now the current\n    one\n"},
		"empty": {table{}, 50, ""},
	} {
		out := &page{width: test.width}
		test.table.print(out)
		if out.String() != test.want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, out, test.want)
		}
		for line := range strings.Lines(out.String()) {
			if got := visible(strings.TrimSuffix(line, "\n")); test.width > 0 && got > test.width {
				t.Errorf("%s: %d columns in %q", name, got, line)
			}
		}
	}
}

// Prose fits a narrow terminal. What is below a mark or indented stays so, and nothing changes
// where lines fit or programs read them.
func TestProseFitsTheTerminal(t *testing.T) {
	const text = "A title that fits\n\n  → user: one two three four five six seven eight nine ten\n  source: https://" +
		"example.com/a/long/address/that/is/never/broken\nplain one two three four five six seven"
	for width, want := range map[int]string{
		0: text, 200: text,
		30: "A title that fits\n\n  → user: one two three four\n    five six seven eight nine\n    ten\n  source:\n  " +
			"https://example.com/a/long/address/that/is/never/broken\nplain one two three four five\nsix seven",
	} {
		if got := fitProse(width, text); got != want {
			t.Errorf("%d columns:\n%s\nwant:\n%s", width, got, want)
		}
	}
}

// The answers of setup and of doctor --advise, which have much prose, fit 60 columns apart from
// addresses and commands in one word.
func TestAdviceFitsTheTerminal(t *testing.T) {
	acme := token.Connection{Environment: "sandbox", Name: "acme"}
	facts := &setupFacts{conn: acme, redirects: []redirectURI{}}
	for name, print := range map[string]func(io.Writer){
		"advise": adviceAnswer{Advice: accessAdvice, Differences: accessDifferences,
			Connections: []connectionAdvice{adviceOn(rotation.Record{Connection: acme})}}.print,
		"setup": func(w io.Writer) { facts.answer(func(s string) string { return s }).print(w, painter{}) },
	} {
		out := page{width: 60}
		print(&out)
		for line := range strings.SplitSeq(out.String(), "\n") {
			if visible(line) > 60 && strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("%s: %d columns: %s", name, visible(line), line)
			}
		}
	}
}
