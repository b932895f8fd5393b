package main

import (
	"strings"
	"testing"
)

// The rest of what people get wrong, with a pipe in place of the terminal.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	s.connects("demo/acme")
	for name, test := range map[string]struct {
		input string
		args  string
		exit  int
		says  string
	}{
		"unknown connection": {"", "connection show demo/nobody", notFound,
			"there is no connection demo/nobody"},
		"no credentials": {"", "connection authorize sandbox/acme", notFound, "there are no app credentials " +
			"for sandbox; store them with: tokenturn app set sandbox"},
		"pipe without a code": {"", "connection authorize demo/other", usage,
			"Standard input is not a terminal; the code is read from it anyway."},
		"pipe with a guess": {"guess\n", "connection authorize demo/other", needsConsent,
			"Procore refuses the code"},
		"endless line": {strings.Repeat("x", 1<<17), "connection authorize demo/other", failed,
			"the line is too long; no code was exchanged"},
		"no line at all": {strings.Repeat("\x00", 1<<17), "connection authorize demo/other", failed,
			"the line is too long"},
		"disconnect unconfirmed": {"no\n", "connection disconnect demo/acme", usage,
			"that is not demo/acme; nothing was changed"},
		"disconnect of another name": {"demo/other\n", "connection disconnect demo/acme", usage,
			"that is not demo/acme; nothing was changed"},
		"disconnect without an answer": {"", "connection disconnect demo/acme", usage,
			"the input has ended; nothing was changed; to skip the question, add --yes"},
		"credentials from a pipe": {"id\nsecret\n", "app set demo", usage,
			"standard input is not a terminal; pass the credentials as JSON with --stdin"},
		"credentials that are none": {"id\nsecret\n", "app set demo --stdin", usage, "are not the JSON object"},
		"a secret as argument":      {"", "app set demo canary-secret", usage, "usage: tokenturn app set ENV"},
		"a code as argument": {"", "connection authorize demo/acme canary-code", usage,
			"usage: tokenturn connection authorize ENV/NAME"},
		"a name in capitals": {"", "connection authorize Demo/Acme", usage, "is not of the form environment/name"},
		"a name with an escape": {"", "connection show demo/\x1b[2J", usage,
			`connection "demo/\x1b[2J" is not of the form`},
		"a redirect to elsewhere": {"", "connection authorize demo/acme --loopback=https://example.com/", usage,
			"--loopback: not an http:// address of this machine"},
	} {
		t.Run(name, func(t *testing.T) {
			exit, said := s.pipe(test.input, strings.Fields(test.args)...)
			if exit != test.exit || !strings.Contains(said, test.says) || strings.Contains(said, "canary") ||
				strings.Contains(said, "\x1b") {
				t.Errorf("exit code %d, want %d with %q; said:\n%q", exit, test.exit, test.says, said)
			}
			if got := s.status("demo/acme"); got != "active" {
				t.Errorf("the connection is %s", got)
			}
		})
	}
}
