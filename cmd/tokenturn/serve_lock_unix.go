//go:build linux || darwin

package main

import (
	"errors"
	"os"
	"syscall"
)

// lockDir marks the data directory as served until f is closed or the process ends, however
// it ends. Several processes may do that at once.
func lockDir(dir string) (f *os.File, err error) {
	if f, err = os.Open(dir); err != nil {
		return nil, err
	}
	if err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// dirIsLocked reports whether a process may have marked the data directory.
func dirIsLocked(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return true
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}
