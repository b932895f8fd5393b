package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A version sorts after the tag that it follows and before the next release.
func TestVersionOfACommit(t *testing.T) {
	for _, test := range []struct{ describe, changes, want string }{
		{"v1.2.3-0-g0123abc", "", "v1.2.3"},
		{"v1.2.3-5-g0123abc", "", "v1.2.4-dev.5.g0123abc"},
		{"v1.2.3-0-g0123abc", " M main.go", "v1.2.4-dev.0.g0123abc.dirty"},
		{"v1.2.3-rc.1-0-g0123abc", "", "v1.2.3-rc.1"},
		{"v1.2.3-rc.1-5-g0123abc", "", "v1.2.3-rc.1.dev.5.g0123abc"},
		{"", "", "v0.0.0-dev.7.g0123abc"},
		{"", " M main.go", "v0.0.0-dev.7.g0123abc.dirty"},
	} {
		git := func(args ...string) (string, error) {
			switch {
			case args[0] == "status":
				return test.changes, nil
			case args[0] == "describe" && test.describe != "":
				return test.describe, nil
			case args[0] == "rev-list":
				return "7", nil
			case args[0] == "rev-parse":
				return "0123abc", nil
			}
			return "", errors.New("there is no tag")
		}
		version, err := described(git)
		if err != nil || version != test.want {
			t.Errorf("%+v: %s, %v", test, version, err)
		}
		if !semantic.MatchString(version) {
			t.Errorf("%s is not accepted with -version", version)
		}
	}
}

func TestSourceThatIsGiven(t *testing.T) {
	epoch := func(value string) func(string) string {
		return func(name string) string { return map[string]string{"SOURCE_DATE_EPOCH": value}[name] }
	}
	version, at, err := source(t.Context(), t.TempDir(), "v1.2.3", epoch("1700000000"))
	if err != nil || version != "v1.2.3" || !at.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("%s, %v, %v", version, at, err)
	}
	for _, test := range []struct{ version, epoch, want string }{
		{"v1.2.3", "yesterday", "seconds since 1970"},
		{"v1.2.3", "", "set SOURCE_DATE_EPOCH"},
		{"", "1", "use -version"},
		{"1.2.3", "1", "no version"},
		{"v1.2.3 -X main.x=y", "1", "no version"},
	} {
		if _, _, err := source(t.Context(), t.TempDir(), test.version, epoch(test.epoch)); err == nil ||
			!strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
