//go:build !unix

package main

import "os/exec"

// apart does nothing here: the process ignores Ctrl-C once it has started.
func apart(*exec.Cmd) {}
