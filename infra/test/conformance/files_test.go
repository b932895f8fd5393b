//go:build conformance && linux

package conformance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// fileFault is one way in which a call on a file goes wrong.
type fileFault struct {
	name    string
	verdict verdict
	hits    func(fileCall) bool
}

var fileFaults = []fileFault{
	{"EIO", verdict{errno: syscall.EIO}, func(fileCall) bool { return true }},
	{"ENOSPC", verdict{errno: syscall.ENOSPC}, fileCall.changes},
	{"SIGKILL", verdict{kill: true}, fileCall.changes},
	{"SIGKILL half-way", verdict{half: true}, fileCall.writes},
}

// TestFilesFail rotates with the command on the embedded store, over and over, and lets each
// call that it makes on a file in the directory go wrong once: it fails for an input or
// output error or a full disk, or the program is killed there, or in the middle of a write.
// Whatever the program said before stays true, and the next program finds the connection
// in order, unless it was killed between the server's answer and the first saved copy.
func TestFilesFail(t *testing.T) {
	t.Parallel()
	eachFileCall(t, newFiles, (*files).rotateWrong, "connection", "rotate", filesConnection.String())
}

// TestFirstFilesFail does the same to the command that makes the directory.
func TestFirstFilesFail(t *testing.T) {
	t.Parallel()
	eachFileCall(t, noFiles, (*files).setWrong, "app", "set", filesConnection.Environment, "--stdin")
}

// fault is one call that goes wrong in one way.
type fault struct {
	fileFault
	at   int
	call fileCall // as it was without a fault
}

// eachFileCall runs the command without a fault to see its calls on files, and then once for
// every way in which one of them can go wrong, on a directory of its own each time.
func eachFileCall(t *testing.T, prepare func(*testing.T) (*files, error), wrong func(*files, fault) (string, error),
	command ...string) {
	f, err := prepare(t)
	if err != nil {
		t.Fatal(err)
	}
	first, err := f.run(nil, command...)
	if err != nil || first.code != 0 {
		t.Fatalf("without a fault it exits with %d: %v\n%s", first.code, err, &f.said)
	}
	if err := synced(first.calls); err != nil {
		t.Error(err)
	}
	var mu sync.Mutex
	table := map[string]map[string]int{}
	var all sync.WaitGroup // most of them wait, most of the time, so they are more than -parallel
	for _, one := range faultsIn(first.calls) {
		all.Go(func() {
			f, err := prepare(t)
			var end string
			if err == nil {
				end, err = wrong(f, one)
			}
			if err != nil {
				end = "FAILED"
				t.Errorf("%s in call %d, %s: %v", one.name, one.at, one.call, err)
				if f != nil {
					t.Logf("the command said:\n%s", &f.said)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			row := one.name + " in " + one.call.Name
			if table[row] == nil {
				table[row] = map[string]int{}
			}
			table[row][end]++
		})
	}
	all.Wait()
	t.Logf("%s makes %d calls on files; tried:", strings.Join(command, " "), len(first.calls))
	for _, row := range slices.Sorted(maps.Keys(table)) {
		total := 0
		var ends []string
		for _, end := range slices.Sorted(maps.Keys(table[row])) {
			total += table[row][end]
			ends = append(ends, fmt.Sprintf("%d %s", table[row][end], end))
		}
		t.Logf("  %-32s %4d: %s", row, total, strings.Join(ends, ", "))
	}
}

// synced wants what was written to a file to be on the disk before the lock is given to others
// or the file is put in its place: a power cut must find all that anybody relied on. The shared
// memory of the log is made again after one.
func synced(calls []fileCall) error {
	written := map[string]bool{}
	for i, c := range calls {
		switch {
		case strings.HasSuffix(c.File, "-shm") && c.Name != "lock":
		case c.writes():
			written[c.File] = true
		case strings.HasSuffix(c.Name, "sync"):
			delete(written, c.File)
		case (c.Name == "lock" || strings.HasPrefix(c.Name, "link")) && len(written) > 0:
			return fmt.Errorf("at call %d, %s, not all of %v is on the disk", i+1, c, slices.Sorted(maps.Keys(written)))
		}
	}
	return nil
}

// faultsIn lists the faults that calls can have. In the ordinary run it leaves some out.
func faultsIn(calls []fileCall) (all []fault) {
	for _, kind := range fileFaults {
		n := 0
		for i, c := range calls {
			if !kind.hits(c) {
				continue
			}
			if n++; n%fileStride == 0 {
				all = append(all, fault{kind, i + 1, c})
			}
		}
	}
	return all
}

var filesConnection = token.Connection{Environment: "files", Name: "acme"}

// files is a directory of the embedded store, and a server.
type files struct {
	dir    string
	binary string
	server *procoretest.Server
	app    string // its credentials
	said   bytes.Buffer
}

// filesVariables make the waits of the protocol short, but no answer late on a busy machine.
var filesVariables = []string{"TOKENTURN_REDEEM_TIMEOUT=5s", "TOKENTURN_LEASE=15s", "TOKENTURN_QUIET=1s"}

// atWork bounds how many programs run at once; more than processors would let each other time out.
var atWork = make(chan struct{}, 4)

func working() (done func()) {
	atWork <- struct{}{}
	return func() { <-atWork }
}

func noFiles(t *testing.T) (*files, error) {
	app := procoretest.App{Name: "files", ClientID: "files", ClientSecret: token.NewSecret("files-secret"),
		RedirectURIs: []string{procore.OutOfBand}}
	binary, err := buildCommand()
	if err != nil {
		return nil, err
	}
	f := &files{dir: filepath.Join(t.TempDir(), "data"), binary: binary, server: procoretest.New(procoretest.WithApp(app))}
	t.Cleanup(f.server.Close)
	value, err := procore.Credentials{ClientID: app.ClientID, ClientSecret: app.ClientSecret,
		RedirectURI: app.RedirectURIs[0], LoginURL: f.server.URL, APIURL: f.server.URL}.Encode()
	f.app = value.Reveal()
	return f, err
}

// newFiles is a directory with a connection.
func newFiles(t *testing.T) (*files, error) {
	f, err := noFiles(t)
	if err == nil {
		err = f.connect(t.Context())
	}
	return f, err
}

// connect connects and rotates once, and takes away what the first attempt left to the later
// ones, so that the next rotation makes it.
func (f *files) connect(ctx context.Context) error {
	pair, err := f.server.Issue("files", procoretest.DefaultUser().Login)
	if err != nil {
		return err
	}
	defer working()()
	store, err := embedded.Open(ctx, f.dir)
	if err != nil {
		return err
	}
	applications := store.Applications(procore.ParseApplication)
	settings := rotation.DefaultSettings("embedded")
	settings.PutsPerDay = 0
	issuer, log := procore.New(procore.Config{RedeemTimeout: settings.RedeemTimeout}), slog.New(slog.DiscardHandler)
	rotator, err := rotation.NewRotator(rotation.Config{Ledger: store.Ledger(), SecretStore: store.SecretStore(),
		Sealer: store.Sealer(), Applications: applications, Issuer: issuer, Log: log, Settings: settings})
	if err != nil {
		return err
	}
	consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: store.Ledger(), Sealer: store.Sealer(),
		Applications: applications, Issuer: issuer, Log: log, Settings: settings})
	if err != nil {
		return err
	}
	_, registered := rotation.Register(ctx, store.Ledger(), store.SecretStore(), settings.Stack, filesConnection)
	if err := errors.Join(applications.Set(ctx, filesConnection.Environment, token.NewSecret(f.app)), registered,
		consents.Import(ctx, filesConnection, pair.RefreshToken, "")); err != nil {
		return err
	}
	report, err := rotator.Rotate(ctx, filesConnection)
	if err == nil && report.Connections[0].Outcome != rotation.Rotated {
		err = fmt.Errorf("connecting: %+v", report)
	}
	return errors.Join(err, store.Close(), os.Remove(filepath.Join(f.dir, embedded.ReserveName)))
}

// ran is one run of the command.
type ran struct {
	code  int // -1: killed
	out   string
	calls []fileCall
	hit   fileCall // that went wrong
}

// run runs the command, under supervision. A nil fault is none.
func (f *files) run(wrong *fault, arguments ...string) (r ran, err error) {
	defer working()()
	cmd := exec.Command(f.binary, append([]string{"--data", f.dir}, arguments...)...)
	cmd.Env = append(osVariables(), filesVariables...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(f.app), &out, &f.said
	r.calls, err = supervise(cmd, f.dir, func(n int, c fileCall) verdict {
		if wrong == nil || n != wrong.at {
			return verdict{}
		}
		r.hit = c
		return wrong.verdict
	})
	r.code, r.out = cmd.ProcessState.ExitCode(), out.String()
	if err == nil && wrong != nil && (r.hit != wrong.call || wrong.kills() != (r.code == -1)) {
		err = fmt.Errorf("the call was %s, of %d, and the program ended with %d", r.hit, len(r.calls), r.code)
	}
	return r, err
}

func (f fileFault) kills() bool { return f.verdict.errno == 0 }

// said names what an exit code says to the caller of the command.
func (r ran) said() string {
	return cmp.Or(map[int]string{0: "done", -1: "killed", 1: "failed", 5: "later"}[r.code], fmt.Sprint("exit ", r.code))
}

// state is what the store and the server know.
type state struct {
	record    rotation.Record
	responses []rotation.TokenResponse
	history   []rotation.Event
	shown     token.Document // to readers
	presented map[token.Fingerprint]int
}

func (f *files) state() (s state, err error) {
	defer working()()
	ctx := context.Background()
	store, err := embedded.Open(ctx, f.dir)
	if err != nil {
		return s, fmt.Errorf("opening the directory: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Examine(ctx); err != nil {
		return s, err
	}
	s.presented = f.server.Presented()
	if s.record, s.responses, err = store.Ledger().Load(ctx, filesConnection); err != nil {
		return s, err
	}
	if s.history, err = store.Ledger().History(ctx, filesConnection, 100); err != nil {
		return s, err
	}
	version, err := store.SecretStore().Current(ctx, filesConnection)
	if err == nil {
		s.shown, err = token.ParseDocument(version.Value)
	}
	return s, err
}

// has reports whether the store has an answer to the token with this fingerprint.
func (s state) has(answerTo token.Fingerprint) bool {
	return slices.ContainsFunc(s.responses, func(m rotation.TokenResponse) bool { return m.Parent == answerTo })
}

// decided reports whether history tells how the generation came.
func (s state) decided(generation int64) bool {
	return slices.ContainsFunc(s.history, func(e rotation.Event) bool {
		return e.Kind == "decided" && e.Generation == generation
	})
}

// rotateWrong rotates with a fault, and then without any until the connection is in order
// again. It says how that ended.
func (f *files) rotateWrong(wrong fault) (end string, err error) {
	before, err := f.state()
	if err != nil {
		return "", err
	}
	first, err := f.run(&wrong, "connection", "rotate", filesConnection.String())
	if err != nil {
		return "", err
	}
	after, err := f.state()
	if err != nil {
		return "", err
	}
	spent := before.record.Current.Fingerprint
	open := after.presented[spent] > 0 && !after.has(spent) // nobody has the answer
	was, is := before.record.Generation, after.record.Generation
	switch {
	case open && !wrong.kills():
		return "", errors.New("the answer is lost, although the program went on")
	case first.code == 0 && (is != was+1 || after.shown.Generation != is || !after.decided(is)):
		return "", fmt.Errorf("it said that it is done; generation %d is current and %d shown, after %d",
			is, after.shown.Generation, was)
	case is < was || after.shown.Generation < before.shown.Generation:
		return "", fmt.Errorf("generation %d is current and %d shown, after %d", is, after.shown.Generation, was)
	}
	code, err := f.recover()
	if err != nil {
		return "", err
	}
	last, err := f.state()
	if err != nil {
		return "", err
	}
	for fingerprint, times := range last.presented {
		if times > 1 && !(open && fingerprint == spent && times == 2) {
			return "", fmt.Errorf("a token was presented %d times", times)
		}
	}
	switch {
	case code == 3 && open:
		return first.said() + " before saving, needs consent (W1, W2)", nil
	case code != 0:
		return "", fmt.Errorf("afterwards a rotation exits with %d; the answer was known to nobody: %t", code, open)
	case last.record.Generation <= is || !last.decided(last.record.Generation):
		return "", fmt.Errorf("a rotation from generation %d led to %d", is, last.record.Generation)
	}
	printed, err := f.run(nil, "token", "print", filesConnection.String())
	if err == nil && !f.server.Accepts(token.NewSecret(strings.TrimSpace(printed.out))) {
		err = errors.New("the server does not accept the token that is printed")
	}
	return first.said(), err
}

// recover rotates without faults, as often as there is to wait for something, which no clock of
// the program can be wound for.
func (f *files) recover() (code int, err error) {
	for range 10 {
		s, err := f.state()
		if err != nil {
			return 0, err
		}
		wait := time.Until(s.record.DueAt) + 50*time.Millisecond
		if code == 5 { // another run's part lasts half a lease, of which the due time does not tell
			wait = max(wait, 2*time.Second)
		}
		if code == 5 || s.record.Attempt != nil || s.record.Failure() != nil {
			time.Sleep(min(wait, time.Minute))
		}
		r, err := f.run(nil, "connection", "rotate", filesConnection.String())
		if code = r.code; code != 5 || err != nil {
			return code, err
		}
	}
	return code, nil
}

// succeeds runs the command without a fault.
func (f *files) succeeds(arguments ...string) error {
	r, err := f.run(nil, arguments...)
	if err == nil && r.code != 0 {
		err = fmt.Errorf("afterwards %s exits with %d", strings.Join(arguments, " "), r.code)
	}
	return err
}

// setWrong stores the app's credentials with a fault, and then without one.
func (f *files) setWrong(wrong fault) (end string, err error) {
	set := []string{"app", "set", filesConnection.Environment, "--stdin"}
	show := []string{"app", "show", filesConnection.Environment}
	first, err := f.run(&wrong, set...)
	if err != nil {
		return "", err
	}
	if first.code == 0 {
		if err := f.succeeds(show...); err != nil {
			return "", fmt.Errorf("it said that it is done: %w", err)
		}
	}
	if err := f.succeeds(set...); err != nil {
		return "", err
	}
	if err := f.succeeds(show...); err != nil {
		return "", err
	}
	return first.said(), nil
}

// TestRotationOnAFullDisk rotates on disks with more and more room, from none. No token
// is presented without room to save the answer, and with room again the connection works.
func TestRotationOnAFullDisk(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	ends := map[string]int{}
	var all sync.WaitGroup
	for room := int64(0); room <= 1<<20; room += 48 << 10 {
		all.Go(func() {
			end, err := rotateWithRoom(t, room)
			if err != nil {
				t.Errorf("room for %d bytes: %v", room, err)
			}
			mu.Lock()
			defer mu.Unlock()
			ends[end]++
		})
	}
	all.Wait()
	t.Logf("a rotation with room for 0 to 1 MiB, and what then was known: %v", ends)
	if ends["failed, not presented"] == 0 || ends["done, saved"] == 0 {
		t.Error("there is always room, or never")
	}
}

func rotateWithRoom(t *testing.T, room int64) (end string, err error) {
	f, err := noFiles(t)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		return "", err
	}
	if err := syscall.Mount("tmpfs", f.dir, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		return "", fmt.Errorf("mounting a small disk, for which this must be root: %w", err)
	}
	defer func() { err = errors.Join(err, syscall.Unmount(f.dir, 0)) }()
	if err := f.connect(t.Context()); err != nil {
		return "", err
	}
	before, err := f.state()
	if err != nil {
		return "", err
	}
	ballast := filepath.Join(f.dir, "ballast")
	if err := fillDisk(ballast, room); err != nil {
		return "", err
	}
	first, err := f.run(nil, "connection", "rotate", filesConnection.String())
	if err = errors.Join(err, os.Remove(ballast)); err != nil {
		return "", err
	}
	after, err := f.state()
	if err != nil {
		return "", err
	}
	end = first.said()
	spent := before.record.Current.Fingerprint
	switch presented := after.presented[spent] > 0; {
	case presented && !after.has(spent):
		return end, fmt.Errorf("the answer is lost\n%s", &f.said)
	case presented:
		end += ", saved"
	default:
		end += ", not presented"
	}
	code, err := f.recover()
	if err == nil && code != 0 {
		err = fmt.Errorf("with room again a rotation exits with %d\n%s", code, &f.said)
	}
	return end, err
}

// fillDisk leaves so much room, or all that there is.
func fillDisk(ballast string, room int64) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(ballast), &disk); err != nil {
		return err
	}
	return os.WriteFile(ballast, make([]byte, max(0, int64(disk.Bavail)*disk.Bsize-room)), 0o600)
}
