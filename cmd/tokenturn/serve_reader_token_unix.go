//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// openItself opens a file for reading, and not what a symbolic link leads to. It does not wait for
// the writer of a pipe.
func openItself(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if info, statErr := os.Lstat(file); err != nil && statErr == nil && info.Mode()&fs.ModeSymlink != 0 {
		// systems have different errors for it
		return nil, errors.New(file + " is a symbolic link; name the file itself with --token-file")
	}
	return f, err
}

// foreignOwner reports whether a file belongs to another user than root and the one of this process.
func foreignOwner(info fs.FileInfo) (uid int, foreign bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, true
	}
	return int(stat.Uid), stat.Uid != 0 && int(stat.Uid) != os.Geteuid()
}

// groupOf returns the id of a file's group; -1: not known.
func groupOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Gid)
	}
	return -1
}
