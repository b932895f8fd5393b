//go:build !unix

package main

import (
	"io/fs"
	"os"
)

func openItself(file string) (*os.File, error) { return os.Open(file) }

// foreignOwner reports nothing: the owner of a file is not known.
func foreignOwner(fs.FileInfo) (uid int, foreign bool) { return -1, false }

// groupOf returns the id of a file's group; -1: not known.
func groupOf(fs.FileInfo) int { return -1 }
