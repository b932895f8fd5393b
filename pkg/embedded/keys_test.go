package embedded

import (
	"strings"
	"testing"
)

func FuzzParseKey(f *testing.F) {
	for _, text := range []string{"", keyPrefix, formatKey(make([]byte, 32)), formatKey(make([]byte, 31)),
		strings.ReplaceAll(formatKey(make([]byte, 32)), "\n", "\r\n"), keyPrefix + strings.Repeat("0", 42) + "\r0",
		formatKey(make([]byte, 32)) + formatKey(make([]byte, 32))} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		master, ok := parseKey(text)
		if !ok {
			return
		}
		if len(master) != 32 || formatKey(master) != text {
			t.Errorf("%q is read as another key", text)
		}
	})
}
