//go:build conformance && linux

package conformance

import "golang.org/x/sys/unix"

var olderCalls = map[string]uintptr{"fstatat": unix.SYS_FSTATAT}
