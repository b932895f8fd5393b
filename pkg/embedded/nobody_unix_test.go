//go:build unix

package embedded_test

import (
	"os/exec"
	"syscall"
)

const nobody = 65534

// asNobody lets a process of root run as a user for whom file modes hold.
func asNobody(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}
