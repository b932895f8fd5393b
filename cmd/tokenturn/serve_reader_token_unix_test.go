//go:build unix

package main

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The token stays the same, because programs keep it in their environment. Only its owner can
// read the file, or the group that it is given to.
func TestReaderToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	mode := func(want os.FileMode) {
		t.Helper()
		info, err := os.Stat(file)
		if err != nil || info.Mode() != want {
			t.Errorf("%v %v, want %v", info.Mode(), err, want)
		}
	}
	first, err := readerToken(file, "")
	if err != nil || len(first.Reveal()) < 26 {
		t.Fatalf("%d characters, %v", len(first.Reveal()), err)
	}
	mode(0o600)
	group, err := user.LookupGroupId(strconv.Itoa(os.Getegid()))
	if err != nil {
		t.Skip("the group of this process has no name: ", err)
	}
	if second, err := readerToken(file, group.Name); err != nil || second.Reveal() != first.Reveal() {
		t.Errorf("another token, or none: %v", err)
	}
	mode(0o640)
	if second, err := readerToken(file, ""); err != nil || second.Reveal() != first.Reveal() {
		t.Errorf("another token, or none: %v", err)
	}
	mode(0o640) // an administrator may have given it to a group
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if second, err := readerToken(file, group.Name); err != nil || second.Reveal() == first.Reveal() {
		t.Errorf("the same token, or none: %v", err)
	}
	mode(0o640)
	if found, err := os.ReadDir(filepath.Dir(file)); err != nil || len(found) != 1 {
		t.Errorf("%v %v", found, err)
	}
}

func TestReaderTokenRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		mode    os.FileMode
		group   string
		says    string
	}{
		"others": {strings.Repeat("a", 26), 0o644, "", "other users can read"},
		"group":  {strings.Repeat("a", 26), 0o660, "", "its group can change it"},
		// it may be a key
		"short":   {"secret", 0o600, "", "is not a token of readers; choose another file with --token-file"},
		"spaces":  {strings.Repeat("a b", 10), 0o600, "", "is not a token of readers"},
		"no such": {strings.Repeat("a", 26), 0o600, "no-such-group", "--token-group: group: unknown group no-such-group"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte(test.content), test.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, test.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := readerToken(file, test.group); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("our own name", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), readerTokenName)
		if err := os.WriteFile(file, []byte("cut"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readerToken(file, ""); err == nil || !strings.Contains(err.Error(), "delete it, and tokenturn makes") {
			t.Errorf("%v", err)
		}
	})
	t.Run("link", func(t *testing.T) {
		file, link := filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "link")
		if err := errors.Join(createReaderToken(file), os.Symlink(file, link)); err != nil {
			t.Fatal(err)
		}
		if _, err := readerToken(link, ""); err == nil || !strings.Contains(err.Error(), "link is a symbolic link") {
			t.Errorf("%v", err)
		}
	})
	t.Run("pipe", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pipe")
		if err := syscall.Mkfifo(file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readerToken(file, ""); err == nil || !strings.Contains(err.Error(), "is not a file") {
			t.Errorf("%v", err)
		}
	})
	t.Run("another owner", func(t *testing.T) {
		const nobody = 65534
		file := filepath.Join(t.TempDir(), "token")
		if err := createReaderToken(file); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(file, nobody, -1); err != nil {
			t.Skip("only root can give a file away: ", err)
		}
		if _, err := readerToken(file, ""); err == nil || !strings.Contains(err.Error(),
			"belongs to another user (uid 65534), who can read and change the token; let that user or root delete it") {
			t.Errorf("%v", err)
		}
	})
	if _, err := readerToken(filepath.Join(t.TempDir(), "missing", "token"), ""); err == nil ||
		!strings.Contains(err.Error(), "choose another file with --token-file") {
		t.Errorf("no directory: %v", err)
	}
}
