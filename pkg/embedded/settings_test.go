package embedded_test

import (
	"maps"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/embedded"
)

// The settings for durability, secrecy and soundness hold on every connection to the
// database, also on one that replaces another. Killing processes shows no difference
// between FULL and NORMAL; a power cut does.
func TestEveryConnectionIsSet(t *testing.T) {
	want := map[string]string{
		"journal_mode":  "wal",
		"synchronous":   "2", // FULL: every commit is synced
		"foreign_keys":  "1",
		"secure_delete": "1", // what is deleted is overwritten
		"busy_timeout":  "10000",
		"locking_mode":  "normal", // several processes
	}
	var names []string
	for name := range maps.Keys(want) {
		names = append(names, name)
	}
	s := openStore(t, t.TempDir())
	all, err := embedded.Pragmas(t.Context(), s, 5, names...)
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range all {
		if !maps.Equal(got, want) {
			t.Errorf("connection %d has %v, want %v", i, got, want)
		}
	}
	if len(all) != 5 {
		t.Errorf("%d connections were examined", len(all))
	}
}
