//go:build !unix

package main

import "io/fs"

// groupOf returns the id of a file's group; -1: not known.
func groupOf(fs.FileInfo) int { return -1 }
