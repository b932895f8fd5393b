package embedded_test

import (
	"context"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

func init() { children["limited"] = onLimitedFiles }

// fileLimit is a disk on which every file may grow to a number of bytes and no further.
type fileLimit struct{}

func (fileLimit) leave(room int64) error { return limitFiles(uint64(room)) }
func (fileLimit) free() error            { return limitFiles(1 << 40) }
func (fileLimit) refusal() string        { return "check the disk" }

func limitFiles(bytes uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	limit.Cur = min(bytes, limit.Max)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
}

// onLimitedFiles is a process of its own, because its limit is that of all its files.
func onLimitedFiles(ctx context.Context, dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	// Not on a store that was used: a limit below what was written before is no full disk.
	all, err := onFullDisk(ctx, dir, fileLimit{}, steps(40<<10, 640<<10, 150<<10), false)
	fmt.Println(all)
	if err == nil && (all.saved == 0 || all.notBegun == 0) {
		err = fmt.Errorf("the limits are not where it matters")
	}
	return err
}

// An attempt that can begin where files may not grow any more can save its answer.
func TestAttemptsWhereFilesCannotGrow(t *testing.T) {
	out, err := child(t, "limited", t.TempDir(), false).CombinedOutput()
	t.Log(strings.TrimSpace(string(out)))
	if err != nil {
		t.Error(err)
	}
}
