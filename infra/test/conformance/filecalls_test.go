//go:build conformance && linux

package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A program under supervision asks this process about each of its system calls on files
// (seccomp_unotify(2)), so calls are counted over all of its threads. strace counts for each
// thread of its own, and which thread makes a call differs from run to run.

// fileCalls are the system calls that are asked about, by their names.
var fileCalls = merged(olderCalls, map[string]uintptr{
	"openat": unix.SYS_OPENAT, "read": unix.SYS_READ, "pread": unix.SYS_PREAD64,
	"write": unix.SYS_WRITE, "pwrite": unix.SYS_PWRITE64, "fsync": unix.SYS_FSYNC, "fdatasync": unix.SYS_FDATASYNC,
	"ftruncate": unix.SYS_FTRUNCATE, "truncate": unix.SYS_TRUNCATE, "fallocate": unix.SYS_FALLOCATE, "mmap": unix.SYS_MMAP,
	"fstat": unix.SYS_FSTAT, "fcntl": unix.SYS_FCNTL, "fchmod": unix.SYS_FCHMOD,
	"fchown": unix.SYS_FCHOWN, "getdents": unix.SYS_GETDENTS64,
	"mkdirat": unix.SYS_MKDIRAT, "unlinkat": unix.SYS_UNLINKAT, "linkat": unix.SYS_LINKAT, "renameat": unix.SYS_RENAMEAT})

func merged(a, b map[string]uintptr) map[string]uintptr {
	maps.Copy(a, b)
	return a
}

// pathArgument is which argument of a call is a path. The other calls have a descriptor first.
var pathArgument = map[string]int{
	"openat": 1, "mkdirat": 1, "unlinkat": 1, "linkat": 1, "renameat": 1, "fstatat": 1,
	"open": 0, "mkdir": 0, "unlink": 0, "rmdir": 0, "link": 0, "rename": 0, "stat": 0, "lstat": 0, "access": 0, "chmod": 0,
	"truncate": 0,
}

// fileCall is one call on a file in the directory that is watched.
type fileCall struct {
	Name string
	File string // relative to the directory
}

func (c fileCall) String() string { return c.Name + " " + c.File }

// scratch is a directory of its maker's, named at random.
var scratch = regexp.MustCompile(`^new-[0-9]+`)

// changes reports whether the call may change what is stored.
func (c fileCall) changes() bool {
	return c.writes() || strings.HasSuffix(c.Name, "sync") || strings.Contains(c.Name, "truncate") ||
		strings.HasPrefix(c.Name, "mkdir") || strings.HasPrefix(c.Name, "unlink") || strings.HasPrefix(c.Name, "link") ||
		strings.HasPrefix(c.Name, "rename") || c.Name == "create"
}

func (c fileCall) writes() bool { return c.Name == "write" || c.Name == "pwrite" }

// verdict is what becomes of a call.
type verdict struct {
	errno syscall.Errno // it fails
	kill  bool          // the program is killed before it
	half  bool          // ... with half of what it was to write
}

const superviseVariable = "CONFORMANCE_SUPERVISE"

// A test binary that is to become a supervised program never gets to its tests.
func init() {
	if program := os.Getenv(superviseVariable); program != "" {
		fmt.Fprintln(os.Stderr, "supervised:", becomeSupervised(program))
		os.Exit(125)
	}
}

// becomeSupervised asks for supervision, hands the listener to who started this process, and
// becomes the program.
func becomeSupervised(program string) error {
	runtime.LockOSThread() // the filter is the thread's, and goes on to the program
	if err := os.Unsetenv(superviseVariable); err != nil {
		return err
	}
	filter := listenTo()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	environ := os.Environ()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	// Without the second flag a signal would end a call that waits for its verdict, and the
	// same call would be asked about again.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	listener, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags,
		uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("seccomp, which needs Linux 5.19 and must not be forbidden: %w", errno)
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(listener)), nil, 0); err != nil {
		return err
	}
	unix.CloseOnExec(3)
	unix.CloseOnExec(int(listener))
	return unix.Exec(program, os.Args, environ)
}

// listenTo is a filter that lets every call pass but those of fileCalls.
func listenTo() []unix.SockFilter {
	const load, answer = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_RET | unix.BPF_K
	const equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	const nr, fifthArgument = 0, 16 + 4*8 // offsets in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: load, K: fifthArgument}, // mmap without a file is most frequent
		{Code: equal, K: 0xffffffff, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 3},
		{Code: load, K: nr},
		{Code: equal, K: unix.SYS_MMAP, Jf: 1},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
		{Code: load, K: nr},
	}
	for _, number := range fileCalls {
		filter = append(filter, unix.SockFilter{Code: equal, K: uint32(number), Jf: 1},
			unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	return append(filter, unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW})
}

// notification is struct seccomp_notif, reply is struct seccomp_notif_resp.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type reply struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// supervise runs cmd to its end and lets decide say what becomes of each call on a file in
// dir, the first one being number 1. It returns the calls.
func supervise(cmd *exec.Cmd, dir string, decide func(n int, c fileCall) verdict) ([]fileCall, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "supervision")
	cmd.Env = append(cmd.Environ(), superviseVariable+"="+cmd.Path)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Path = "/proc/self/exe"
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { // older kernels tell the listener only of who was waited for
		_ = cmd.Wait() // the exit code tells
		close(ended)
	}()
	s := &supervisor{program: cmd.Process.Pid, dir: dir, decide: decide}
	if s.listener, err = receive(pair[0]); err == nil {
		err = errors.Join(s.run(), unix.Close(s.listener))
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("supervising %s: %w", cmd.Args, err), cmd.Process.Kill())
	}
	<-ended
	return s.calls, err
}

// receive takes the listener from the process that is to become the program.
func receive(socket int) (listener int, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		return 0, errors.Join(err, errors.New("the program could not be put under supervision; its standard error says why"))
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return 0, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

type supervisor struct {
	listener, program int
	dir               string
	decide            func(int, fileCall) verdict
	calls             []fileCall
	failed            error // to do as decided
}

// run answers until the program has ended.
func (s *supervisor) run() error {
	for {
		poll := []unix.PollFd{{Fd: int32(s.listener), Events: unix.POLLIN}}
		switch _, err := unix.Poll(poll, -1); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case poll[0].Revents&unix.POLLIN == 0:
			return s.failed // nobody is left who could ask
		}
		var n notification
		switch err := ioctl(s.listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR): // it was killed, or a signal came, meanwhile
			continue
		case err != nil:
			return err
		}
		answer, answered := s.answer(n)
		if !answered {
			continue
		}
		err := ioctl(s.listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&answer))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// answer says what becomes of a call. There is none for a program that was killed.
func (s *supervisor) answer(n notification) (reply, bool) {
	pass := reply{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	name := n.name()
	if name == "fcntl" {
		if n.args[1] != unix.F_SETLK {
			return pass, true
		}
		name = "lock"
	}
	path, err := n.path(name)
	if err != nil {
		return pass, true
	}
	file, err := filepath.Rel(s.dir, path)
	if err != nil || strings.HasPrefix(file, "..") {
		return pass, true
	}
	if name == "openat" && n.args[2]&unix.O_CREAT != 0 || name == "open" && n.args[1]&unix.O_CREAT != 0 {
		name = "create"
	}
	call := fileCall{name, scratch.ReplaceAllString(file, "new-*")}
	s.calls = append(s.calls, call)
	v := s.decide(len(s.calls), call)
	switch {
	case v.half:
		s.failed = n.writeHalf(name)
		fallthrough
	case v.kill:
		s.failed = errors.Join(s.failed, unix.Kill(s.program, unix.SIGKILL))
		return reply{}, false
	case v.errno != 0:
		return reply{id: n.id, errno: -int32(v.errno)}, true
	}
	return pass, true
}

func (n notification) name() string {
	for name, nr := range fileCalls {
		if nr == uintptr(n.nr) {
			return name
		}
	}
	return fmt.Sprint("call ", n.nr)
}

// path is that of the file the call is about.
func (n notification) path(name string) (string, error) {
	argument, named := pathArgument[name]
	switch {
	case name == "mmap":
		return n.opened(n.args[4])
	case !named:
		return n.opened(n.args[0])
	}
	path, err := n.text(n.args[argument])
	if err != nil || filepath.IsAbs(path) {
		return path, err
	}
	base := fmt.Sprintf("/proc/%d/cwd", n.pid)
	if dirfd := int32(n.args[0]); argument == 1 && dirfd != unix.AT_FDCWD {
		base = fmt.Sprintf("/proc/%d/fd/%d", n.pid, dirfd)
	}
	base, err = os.Readlink(base)
	return filepath.Join(base, path), err
}

func (n notification) opened(fd uint64) (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(fd)))
	return strings.TrimSuffix(path, " (deleted)"), err
}

// text reads a string of the program's.
func (n notification) text(address uint64) (string, error) {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.pid))
	if err != nil {
		return "", err
	}
	defer memory.Close()
	content := make([]byte, unix.PathMax)
	got, err := memory.ReadAt(content, int64(address))
	if end := bytes.IndexByte(content[:got], 0); end >= 0 {
		return string(content[:end]), nil
	}
	return "", errors.Join(err, errors.New("a path without an end"))
}

// writeHalf writes the first half of what the program was about to write, where it was about to.
func (n notification) writeHalf(name string) error {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.pid))
	if err != nil {
		return err
	}
	defer memory.Close()
	content := make([]byte, n.args[2]/2)
	if _, err := memory.ReadAt(content, int64(n.args[1])); err != nil {
		return err
	}
	path, err := n.opened(n.args[0])
	if err != nil {
		return err
	}
	offset := int64(n.args[3])
	if name == "write" { // by the position, which only a descriptor of the program's has
		if offset, err = n.position(); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(content, offset)
	return errors.Join(err, file.Close())
}

// position is where the descriptor of a write stands.
func (n notification) position() (at int64, err error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", n.pid, n.args[0]))
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscanf(string(info), "pos: %d", &at)
	return at, err
}
