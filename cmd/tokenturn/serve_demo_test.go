package main

import "testing"

func TestShellWord(t *testing.T) {
	for text, want := range map[string]string{"/tmp/a-1": "/tmp/a-1", "": "''", "a b": "'a b'", "it's": `'it'\''s'`,
		"$(x)": "'$(x)'"} {
		if got := shellWord(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
