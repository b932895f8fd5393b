//go:build conformance

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const (
	testVersion = "v9.9.9"
	testNumber  = "9.9.9"
	testEpoch   = "1700000000"
)

var builds string // directory of what the tests build

func TestMain(m *testing.M) {
	var err error
	if builds, err = os.MkdirTemp("", "tokenturn-dist-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv("SOURCE_DATE_EPOCH", testEpoch)
	code := m.Run()
	_ = os.RemoveAll(builds)
	os.Exit(code)
}

// first builds for Linux from the working tree, once for all tests.
var first = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(builds, "first")
	var progress bytes.Buffer
	err = run(ctx, options{root: "../..", out: dir, version: testVersion, systems: "linux"}, &progress)
	return dir, err
})

func firstBuild(t *testing.T) string {
	t.Helper()
	dir, err := first()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// A build in another directory, time zone and umask gives the same bytes. Both use Go's build cache, so this does not
// compile everything twice; that Go's compiler gives the same output each time is Go's own promise.
func TestTwoBuildsGiveTheSameBytes(t *testing.T) {
	want := readFile(t, firstBuild(t), sums)
	root := filepath.Join(builds, "elsewhere", "copy")
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = "../.."
	names, err := output(list)
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join("../..", name))
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		} else if err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TZ", "Pacific/Auckland")
	defer syscall.Umask(syscall.Umask(0o077))
	dir := filepath.Join(builds, "second")
	again := options{root: root, out: dir, version: testVersion, systems: "linux"}
	if err := run(t.Context(), again, t.Output()); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, dir, sums); got != want {
		t.Errorf("the second build is\n%s\nthe first is\n%s", got, want)
	}
	check := exec.Command("sha256sum", "--check", "--quiet", sums)
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
