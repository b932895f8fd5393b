//go:build conformance

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
)

var ctx = context.Background()

// A machine is this machine with an overlay over its files: what is installed on it is gone after the test.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("NOT CHECKED: this machine has no dpkg")
	}
	if os.Getuid() != 0 {
		t.Fatal("the test needs root, to mount an overlay")
	}
	memory := t.TempDir()
	m := machine{t, filepath.Join(memory, "root")}
	mount := func(target string, args ...string) {
		t.Helper()
		if err := os.MkdirAll(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("mount", append(args, target)...).CombinedOutput(); err != nil {
			t.Fatalf("mount %v: %v\n%s", args, err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("umount", target).CombinedOutput(); err != nil {
				t.Errorf("umount: %v\n%s", err, out)
			}
		})
	}
	mount(memory, "-t", "tmpfs", "tmpfs")
	upper, work := filepath.Join(memory, "upper"), filepath.Join(memory, "work")
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount(m.root, "-t", "overlay", "-o", "lowerdir=/,upperdir="+upper+",workdir="+work, "overlay")
	mount(filepath.Join(m.root, "proc"), "-t", "proc", "proc")
	mount(filepath.Join(m.root, "dev"), "--bind", "/dev")
	return m
}

func (m machine) path(name string) string { return filepath.Join(m.root, name) }

// run runs a command as root and gives its output.
func (m machine) run(args ...string) string {
	m.t.Helper()
	out, err := exec.Command("chroot", append([]string{m.root}, args...)...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// asService is a command with the user, the umask and without the privileges that the unit takes away.
func (m machine) asService(args ...string) *exec.Cmd {
	cmd := exec.Command("chroot", append([]string{m.root, "setpriv", "--reuid=tokenturn", "--regid=tokenturn",
		"--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "sh", "-c", `umask 0077; exec "$@"`, "sh"},
		args...)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	return cmd
}

// setting is the last value of a name in a file of assignments, such as a unit.
func (m machine) setting(file, name string) (value string) {
	m.t.Helper()
	for line := range strings.Lines(readFile(m.t, m.path(file))) {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			value = strings.TrimSpace(v)
		}
	}
	return value
}

const (
	unit     = "/usr/lib/systemd/system/tokenturn.service"
	defaults = "/etc/default/tokenturn"
)

// The package is installed, its service serves a connection through two rotations, and the package is upgraded,
// removed and purged.
func TestDeb(t *testing.T) {
	deb := "tokenturn_" + testNumber + "_linux_" + runtime.GOARCH + ".deb"
	content := readFile(t, firstBuild(t), deb)
	m := newMachine(t)
	if err := os.WriteFile(m.path("/tmp/"+deb), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := m.run("dpkg", "-i", "/tmp/"+deb); !strings.Contains(out, "The service is not started.") {
		t.Errorf("dpkg -i:\n%s", out)
	}
	m.checkFiles()
	m.checkUnit()
	if version := m.run("tokenturn", "--version"); version != testVersion+"\n" {
		t.Errorf("the version is %s", version)
	}

	m.serveAndRotate()

	if out := m.run("dpkg", "-i", "/tmp/"+deb); strings.Contains(out, "not started") {
		t.Errorf("an upgrade tells what a first installation tells:\n%s", out)
	}
	if !strings.Contains(readFile(t, m.path(defaults)), "--every 1s") {
		t.Error("an upgrade replaced the settings")
	}
	if out := m.run("dpkg", "-r", "tokenturn"); !strings.Contains(out, data+" stays") {
		t.Errorf("dpkg -r:\n%s", out)
	}
	m.wantThere(data+"/tokenturn.db", true)
	m.wantThere(defaults, true)
	m.wantThere("/usr/bin/tokenturn", false)
	if out := m.run("dpkg", "-P", "tokenturn"); !strings.Contains(out, data+" is deleted") {
		t.Errorf("dpkg -P:\n%s", out)
	}
	m.wantThere(data, false)
	m.wantThere(defaults, false)
	if out := m.run("getent", "passwd", "tokenturn"); !strings.Contains(out, "nologin") {
		t.Errorf("the user after the purge: %s", out)
	}
}

func (m machine) wantThere(path string, want bool) {
	m.t.Helper()
	if _, err := os.Lstat(m.path(path)); (err == nil) != want {
		m.t.Errorf("%s: %v", path, err)
	}
}

func (m machine) checkFiles() {
	m.t.Helper()
	if out := m.run("dpkg", "--verify", "tokenturn"); out != "" {
		m.t.Errorf("dpkg --verify:\n%s", out)
	}
	for path, want := range map[string]fs.FileMode{
		"/usr/bin/tokenturn": 0o755, unit: 0o644, defaults: 0o640,
		"/usr/share/doc/tokenturn/copyright":                  0o644,
		"/usr/share/bash-completion/completions/tokenturn":    0o644,
		"/usr/share/zsh/vendor-completions/_tokenturn":        0o644,
		"/usr/share/fish/vendor_completions.d/tokenturn.fish": 0o644,
		data: fs.ModeDir | 0o700,
	} {
		info, err := os.Lstat(m.path(path))
		if err != nil {
			m.t.Error(err)
			continue
		}
		owner := m.run("stat", "-c", "%U:%G", path)
		wantOwner := "root:root\n"
		switch path {
		case data:
			wantOwner = "tokenturn:tokenturn\n"
		case defaults:
			wantOwner = "root:tokenturn\n" // it may contain the password of a proxy
		}
		if info.Mode() != want || owner != wantOwner {
			m.t.Errorf("%s is %v of %s", path, info.Mode(), owner)
		}
	}
	if out := m.run("dpkg-query", "-L", "tokenturn"); !strings.Contains(out, "/usr/share/man/man1/tokenturn-serve.1.gz") {
		m.t.Errorf("no manual pages in\n%s", out)
	}
}

// checkUnit has systemd judge the unit. 20 of 100 is the exposure of a service that may use the network and little
// else.
func (m machine) checkUnit() {
	m.t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		m.t.Log("NOT CHECKED: this machine has no systemd-analyze")
		return
	}
	if out := m.run("systemd-analyze", "verify", "--man=no", unit); out != "" {
		m.t.Errorf("systemd-analyze verify:\n%s", out)
	}
	out := m.run("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit)
	m.t.Log(regexp.MustCompile(`Overall exposure.*`).FindString(out))
}

// serveAndRotate does what an administrator does after the installation, with the stand-in in place of Procore.
func (m machine) serveAndRotate() {
	t := m.t
	t.Helper()
	settings := readFile(t, m.path(defaults)) + "SERVE_OPTIONS=--addr localhost:0 --every 1s\n"
	if err := os.WriteFile(m.path(defaults), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	line := strings.ReplaceAll(m.setting(unit, "ExecStart"), "$SERVE_OPTIONS", m.setting(defaults, "SERVE_OPTIONS"))
	var log lockedBuffer
	service := m.asService(strings.Fields(line)...)
	service.Stdout, service.Stderr = &log, &log
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	defer service.Process.Kill() // it has ended if the test has passed
	public := log.await(t, `http://localhost:\d+`)

	standIn := procoretest.New(procoretest.WithLifetime(4 * time.Second))
	defer standIn.Close()
	app := standIn.NewApp(public + "/callback/demo")
	credentials, err := json.Marshal(map[string]string{"client_id": app.ClientID,
		"client_secret": app.ClientSecret.Reveal(), "redirect_uri": app.RedirectURIs[0], "login_url": standIn.URL,
		"api_url": standIn.URL})
	if err != nil {
		t.Fatal(err)
	}
	operator := func(stdin []byte, args ...string) string {
		t.Helper()
		cmd := m.asService(append([]string{"tokenturn", "--data", data}, args...)...)
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := output(cmd)
		if err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		return string(out)
	}
	operator(credentials, "app", "set", "demo", "--stdin")
	consent(t, operator(nil, "connection", "invite", "demo/acme"))
	log.await(t, `outcome=rotated epoch=1 generation=3`)
	if token := operator(nil, "token", "print", "demo/acme", "--min-ttl", "0s"); len(token) < 20 {
		t.Errorf("the token is %q", token)
	}

	if err := service.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := service.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, log.String())
	}
	owner := m.run("stat", "-c", "%u", data)
	files, err := os.ReadDir(m.path(data))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 || fmt.Sprintln(info.Sys().(*syscall.Stat_t).Uid) != owner {
			t.Errorf("%s is %v of user %d", f.Name(), info.Mode(), info.Sys().(*syscall.Stat_t).Uid)
		}
	}
}

// consent opens the link in text as a person does, and allows.
func consent(t *testing.T, text string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := http.Client{Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	begun, err := browser.Post(regexp.MustCompile(`http://localhost:\d+/connect/[A-Z2-7]+`).FindString(text),
		"application/x-www-form-urlencoded", nil)
	if err != nil {
		t.Fatal(err)
	}
	begun.Body.Close()
	back, err := procoretest.NewHandler().Consent(begun.Header.Get("Location"), procoretest.DefaultUser().Login, true)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := browser.Get(back)
	if err != nil {
		t.Fatal(err)
	}
	ended.Body.Close()
	if location := ended.Header.Get("Location"); !strings.HasSuffix(location, "/connected") {
		t.Fatalf("the callback answered %d and leads to %q", ended.StatusCode, location)
	}
}

// lockedBuffer is the log of a running service.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits until the log has a match, and gives it.
func (b *lockedBuffer) await(t *testing.T, pattern string) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if found := regexp.MustCompile(pattern).FindString(b.String()); found != "" {
			return found
		}
	}
	t.Fatalf("no %s in\n%s", pattern, b.String())
	return ""
}
