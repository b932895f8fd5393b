//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// apart starts cmd in a process group of its own, which Ctrl-C in the terminal does not
// reach.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
