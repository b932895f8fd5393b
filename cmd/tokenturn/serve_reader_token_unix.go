//go:build unix

package main

import (
	"io/fs"
	"syscall"
)

// groupOf returns the id of a file's group; -1: not known.
func groupOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Gid)
	}
	return -1
}
