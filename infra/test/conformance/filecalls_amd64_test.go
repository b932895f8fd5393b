//go:build conformance && linux

package conformance

import "golang.org/x/sys/unix"

// olderCalls are forms of calls that newer architectures do without.
var olderCalls = map[string]uintptr{"open": unix.SYS_OPEN, "stat": unix.SYS_STAT, "lstat": unix.SYS_LSTAT,
	"fstatat": unix.SYS_NEWFSTATAT, "access": unix.SYS_ACCESS, "mkdir": unix.SYS_MKDIR, "unlink": unix.SYS_UNLINK,
	"rmdir": unix.SYS_RMDIR, "link": unix.SYS_LINK, "rename": unix.SYS_RENAME, "chmod": unix.SYS_CHMOD}
