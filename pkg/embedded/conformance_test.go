//go:build conformance

package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func init() { children["full"] = onSmallDisk }

// smallDisk is a file system in memory that another file fills.
type smallDisk struct{ ballast string }

const smallDiskSize = 4 << 20

func (d smallDisk) leave(room int64) error {
	f, err := os.Create(d.ballast)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, zeros{})
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("filling the disk ended with %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() < room {
		err = errors.New("the disk has not so much room")
	}
	if err == nil {
		err = f.Truncate(info.Size() - room)
	}
	return errors.Join(err, f.Close())
}

func (d smallDisk) free() error {
	if err := os.Remove(d.ballast); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (smallDisk) refusal() string {
	return "has no room to save an answer, so nothing was presented; free at least "
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// onSmallDisk is a process with its own mount namespace.
func onSmallDisk(ctx context.Context, dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", smallDiskSize)); err != nil {
		return fmt.Errorf("mounting a small disk, for which this must be root or be let into a user namespace: %w", err)
	}
	disk := smallDisk{filepath.Join(dir, "ballast")}
	if err := madeOnFullDisk(ctx, filepath.Join(dir, "store"), disk); err != nil {
		return err
	}
	if err := refusedOnFullDisk(ctx, filepath.Join(dir, "store"), disk); err != nil {
		return err
	}
	all, err := onFullDisk(ctx, dir, disk, steps(0, 1<<20, 16<<10), false, true)
	fmt.Println(all)
	if err == nil && (all.saved == 0 || all.notBegun == 0) {
		err = fmt.Errorf("there is always room, or never")
	}
	return err
}

// madeOnFullDisk makes stores with each size of room. A store that could not be made is made
// when there is room, and no store is left that cannot be opened.
func madeOnFullDisk(ctx context.Context, dir string, d disk) error {
	made, refused := 0, 0
	for _, room := range steps(0, 512<<10, 4<<10) {
		err := d.leave(room)
		if err != nil {
			return err
		}
		if openAndClose(ctx, dir) == nil {
			made++
		} else {
			refused++
		}
		if err := errors.Join(d.free(), openAndClose(ctx, dir), os.RemoveAll(dir)); err != nil {
			return fmt.Errorf("making a store with room for %d bytes: %w", room, err)
		}
	}
	fmt.Printf("%d stores made, %d not for lack of room\n", made, refused)
	if made == 0 || refused == 0 {
		return errors.New("there is always room, or never")
	}
	return nil
}

// refusedOnFullDisk starts a first and a second attempt on a disk without room for a slot.
// The free space stays for other programs.
func refusedOnFullDisk(ctx context.Context, dir string, d disk) (err error) {
	s, err := embedded.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(), os.RemoveAll(dir)) }()
	for _, name := range []string{"first", "second"} {
		record := rotation.Record{Connection: token.Connection{Environment: "sandbox", Name: name}}
		if record.Revision, err = s.Ledger().Write(ctx, rotation.Change{Record: record}); err != nil {
			return err
		}
		record.Attempt = attempt(name)
		const room = embedded.SlotSize / 2
		if err := d.leave(room); err != nil {
			return err
		}
		_, refusal := s.Ledger().Write(ctx, rotation.Change{Record: record})
		var after syscall.Statfs_t
		if err := syscall.Statfs(dir, &after); err != nil {
			return err
		}
		if free := int64(after.Bavail) * after.Bsize; free != room {
			return fmt.Errorf("%d bytes are free after the %s attempt did not begin, %d were before", free, name, room)
		}
		want := fmt.Sprintf("the disk of %s has no room to save an answer, so nothing was presented; free at least %d bytes",
			dir, embedded.SlotSize-room)
		if refusal == nil || !strings.Contains(refusal.Error(), want) {
			return fmt.Errorf("an attempt without room: %w; want %s", refusal, want)
		}
		if err := d.free(); err != nil {
			return err
		}
		if _, err := s.Ledger().Write(ctx, rotation.Change{Record: record}); err != nil {
			return fmt.Errorf("an attempt with room again: %w", err)
		}
	}
	return nil
}

// An attempt that can begin on a disk that is nearly full can save its answer, however much
// room there is, whatever the size of the answer.
func TestAttemptsOnAFullDisk(t *testing.T) {
	cmd := child(t, "full", t.TempDir(), false)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	t.Log(strings.TrimSpace(string(out)))
	if err != nil {
		t.Error(err)
	}
}
