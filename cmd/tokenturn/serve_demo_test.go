package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenturn/tokenturn/pkg/console"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestShellWord(t *testing.T) {
	for text, want := range map[string]string{"/tmp/a-1": "/tmp/a-1", "": "''", "a b": "'a b'", "it's": `'it'\''s'`,
		"$(x)": "'$(x)'"} {
		if got := shellWord(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// said is what a demo writes, from several goroutines and processes.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// runningDemo is a demo in this process, with its rotation process.
type runningDemo struct {
	*demo
	t    *testing.T
	said *said
	end  func() // ends the demo, as Ctrl-C does
	over chan error
}

// testTiming rotates only when a test asks for it. The durations leave room for a machine that
// is many times slower: recovery takes 11 s with quickRecovery. Where nothing is to be
// recovered, slowRecovery leaves the time to hold an answer.
func testTiming(redeemTimeout time.Duration) demoTiming {
	timing := newDemoTiming(time.Hour)
	timing.redeemTimeout, timing.lease, timing.quiet = redeemTimeout, 2*redeemTimeout+5*time.Second, 500*time.Millisecond
	timing.slow, timing.wait, timing.outage = 300*time.Millisecond, 4*time.Second, time.Second
	timing.refusal, timing.lock, timing.short = 4*time.Second, time.Second, 8*time.Second
	timing.look = 0
	return timing
}

const (
	quickRecovery = 2 * time.Second
	slowRecovery  = 20 * time.Second
)

func startDemo(t *testing.T, timing demoTiming) *runningDemo {
	t.Helper()
	r := &runningDemo{t: t, said: &said{}, over: make(chan error, 1)}
	c := &cli{stdin: strings.NewReader(""), stdout: r.said, stderr: r.said,
		environ: []string{"HOME=" + t.TempDir(), "GORACE=" + os.Getenv("GORACE")}}
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	if r.demo, err = c.newDemo(t.Context(), t.TempDir(), localAddress(listener), timing, ""); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() { r.over <- r.run(ctx, []net.Listener{listener}, serveOptions{}) }()
	r.end = sync.OnceFunc(func() {
		stop()
		if err := <-r.over; err != nil {
			t.Error(err)
		}
		if err := r.close(); err != nil {
			t.Error(err)
		}
		if p, _ := r.faults.supervisor.running(); p != nil {
			t.Error("the rotation process runs after the end of the demo")
		}
	})
	t.Cleanup(func() {
		r.end()
		if t.Failed() {
			t.Logf("the demo said:\n%s", r.said)
		}
	})
	return r
}

// until waits for a fact.
func (r *runningDemo) until(what string, fact func() bool) error {
	for end := time.Now().Add(usualLimit); !fact(); {
		changed := r.lab.Changed()
		if time.Now().After(end) {
			return fmt.Errorf("not observed: %s", what)
		}
		select {
		case <-changed:
		case <-time.After(lookAgain):
		}
	}
	return nil
}

// isReady waits until an experiment can start.
func (r *runningDemo) isReady() error {
	return r.until("ready for an experiment", func() bool { return r.lab.wait(context.Background()) == "" })
}

// connect does what a person does with a consent link.
func (r *runningDemo) connect(link token.Secret) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	browser := http.Client{Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	begun, err := browser.Post(link.Reveal(), "application/x-www-form-urlencoded", nil)
	if err != nil {
		return err
	}
	begun.Body.Close()
	at, err := begun.Location()
	if err != nil {
		return fmt.Errorf("HTTP %d: %w", begun.StatusCode, err)
	}
	back, err := r.standIn.Consent(at.String(), procoretest.DefaultUser().Login, true)
	if err != nil {
		return err
	}
	ended, err := browser.Get(back)
	if err != nil {
		return err
	}
	ended.Body.Close()
	if location := ended.Header.Get("Location"); !strings.HasSuffix(location, "/connected") {
		return fmt.Errorf("the callback answered %d and leads to %q", ended.StatusCode, location)
	}
	return nil
}

// connectAgain is what a person does with a fresh consent link.
func (r *runningDemo) connectAgain() error {
	link, _, err := r.in.makeInvitation(context.Background(), demoConnection, r.in.publicURL,
		invitation{expires: time.Hour})
	if err != nil {
		return err
	}
	return r.connect(link)
}

func (r *runningDemo) experiment(name string) console.Experiment {
	for _, e := range r.lab.Experiments() {
		if e.Name == name {
			return e
		}
	}
	return console.Experiment{}
}

// ask starts an experiment.
func (r *runningDemo) ask(name string) error {
	if err := r.isReady(); err != nil {
		return err
	}
	return r.lab.Start(context.Background(), name)
}

// asksPerson reports whether the next step of a running experiment is a person's.
func asksPerson(e console.Experiment) bool {
	i := slices.IndexFunc(e.Steps, func(s console.Step) bool { return !s.Done })
	return e.State == console.Running && i >= 0 && strings.HasPrefix(e.Steps[i].Text, "You ")
}

// try runs an experiment to its end, with the person's part in it, and wants it to go as
// promised.
func (r *runningDemo) try(name string) error {
	began := time.Now()
	if err := r.ask(name); err != nil {
		return err
	}
	isOver := func() bool { return r.experiment(name).State != console.Running }
	atRest := func() bool { return isOver() || asksPerson(r.experiment(name)) }
	if err := r.until("the end of "+name, atRest); err != nil {
		return err
	}
	if asksPerson(r.experiment(name)) {
		if err := r.connectAgain(); err != nil {
			return err
		}
		if err := r.until("the end of "+name, isOver); err != nil {
			return err
		}
	}
	e := r.experiment(name)
	if e.State != console.Done || e.Why != "" || len(e.Steps) == 0 {
		return fmt.Errorf("%s: %s: %s", name, e.State, e.Why)
	}
	for _, step := range e.Steps {
		if !step.Done || step.At.Before(began) {
			return fmt.Errorf("%s: not done: %s", name, step.Text)
		}
	}
	r.t.Logf("%s took %v", name, time.Since(began).Round(10*time.Millisecond))
	return r.isNormal()
}

// isNormal wants the conditions that there are without an experiment: another rotation
// succeeds, with one presentation, and the old pair overlaps.
func (r *runningDemo) isNormal() error {
	if err := r.isReady(); err != nil {
		return err
	}
	ctx, presented := context.Background(), len(r.standIn.Presentations())
	before, _, err := r.in.ledger.Load(ctx, demoConnection)
	if err != nil {
		return err
	}
	tr := &trial{lab: r.lab, before: before, presented: presented}
	if err := tr.rotateAndSee(ctx, tr.publishes(ctx)); err != nil {
		return err
	}
	rec := tr.record(ctx)
	p, _ := r.faults.supervisor.running()
	if n := len(r.standIn.Presentations()) - presented; n != 1 || rec.Current.Lifetime.Duration() != r.timing.lifetime ||
		time.Until(rec.Current.SavedAt).Abs() > time.Minute || p == nil || p.clock != 0 ||
		!r.faults.alive(before.Current.Fingerprint) {
		return fmt.Errorf("conditions are not normal: %d presentations, lifetime %v, saved at %v", n,
			rec.Current.Lifetime.Duration(), rec.Current.SavedAt)
	}
	return nil
}

// Each experiment goes as it promises, from the button to the recovery. Several demos run
// side by side, because recovery is mostly waiting.
func TestExperiments(t *testing.T) {
	t.Parallel()
	tried := map[string]bool{}
	var demos errgroup.Group
	for _, one := range []struct {
		redeemTimeout time.Duration
		names         []string
	}{
		{quickRecovery, []string{"lose-answer", "old-pair", "wrong-secret"}},
		{quickRecovery, []string{"kill"}},
		{quickRecovery, []string{"down", "clock"}},
		{quickRecovery, []string{"lose-for-good", "revoke"}},
		{slowRecovery, []string{"slow", "lock", "short-tokens"}},
		{slowRecovery, []string{"rate-limit", "refuse-writes"}},
	} {
		names, r := one.names, startDemo(t, testTiming(one.redeemTimeout))
		for _, name := range names {
			tried[name] = true
			if e := r.experiment(name); e.State != console.Ready || !strings.HasPrefix(e.Wait, "Connect demo/acme first") {
				t.Errorf("%s before the consent: %q, %q", name, e.State, e.Wait)
			}
		}
		demos.Go(func() error {
			if err := r.connect(r.link); err != nil {
				return err
			}
			for _, name := range names {
				if err := r.try(name); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := demos.Wait(); err != nil {
		t.Error(err)
	}
	for _, e := range newLab(demoConnection, &installation{}, &faults{}).all {
		if !tried[e.name] {
			t.Errorf("%s is not tried", e.name)
		}
	}
}

// The limit of an experiment leaves time for the tokens that have to live in it, however long
// --every makes them.
func TestShortTokensHaveTheTimeThatTheyLive(t *testing.T) {
	for _, every := range []time.Duration{10 * time.Second, time.Minute, time.Hour} {
		f := &faults{timing: newDemoTiming(every)}
		if limit := f.shortTokens().limit; limit < usualLimit || limit < 4*f.timing.short {
			t.Errorf("limit %v with tokens that live for %v", limit, f.timing.short)
		}
	}
}

// Until the person has connected, and while an experiment runs, none can start. One that does
// not go as promised says which step was not observed.
func TestExperimentsThatCannotStartOrFail(t *testing.T) {
	t.Parallel()
	r := startDemo(t, testTiming(slowRecovery))
	looked := make(chan struct{})
	r.lab.all = append(r.lab.all, &experiment{name: "never", title: "Never", limit: time.Second, steps: []step{
		{"Something is observed.", func(context.Context, *trial) error { <-looked; return nil }},
		{"Nothing is observed.", func(ctx context.Context, t *trial) error {
			r.standIn.TakeDown(503)
			return t.until(ctx, func() bool { return false })
		}},
	}})
	if err := r.lab.Start(t.Context(), "old-pair"); err == nil ||
		!strings.HasPrefix(err.Error(), "Connect demo/acme first") {
		t.Errorf("before the consent: %v", err)
	}
	if err := r.connect(r.link); err != nil {
		t.Fatal(err)
	}
	if err := r.ask("never"); err != nil {
		t.Fatal(err)
	}
	if err := r.lab.Start(t.Context(), "old-pair"); err == nil {
		t.Error("a second experiment runs")
	}
	if e := r.experiment("old-pair"); !strings.Contains(e.Wait, "“Never” is running") {
		t.Errorf("it waits for %q", e.Wait)
	}
	if err := r.lab.Start(t.Context(), "other"); err == nil {
		t.Error("an unknown experiment runs")
	}
	close(looked)
	if err := r.until("the end", func() bool { return r.experiment("never").State != console.Running }); err != nil {
		t.Fatal(err)
	}
	if e := r.experiment("never"); e.State != console.Failed ||
		e.Why != "not observed: Nothing is observed: it took too long" || !e.Steps[0].Done || e.Steps[1].Done {
		t.Errorf("%+v", e)
	}
	if err := errors.Join(r.isNormal(), r.try("old-pair")); err != nil {
		t.Error(err)
	}
}

// A demo that ends in the middle of an experiment leaves a store that works.
func TestDemoEndsDuringAnExperiment(t *testing.T) {
	t.Parallel()
	timing := testTiming(slowRecovery)
	timing.refusal, timing.lock, timing.slow = time.Hour, time.Hour, time.Hour
	var demos errgroup.Group
	for _, name := range []string{"refuse-writes", "lock", "slow"} {
		r := startDemo(t, timing)
		demos.Go(func() error {
			if err := errors.Join(r.connect(r.link), r.ask(name)); err != nil {
				return err
			}
			if err := r.until("the first step", func() bool { return r.experiment(name).Steps[0].Done }); err != nil {
				return err
			}
			r.end()
			if e := r.lab.all[slices.IndexFunc(r.lab.all, func(e *experiment) bool { return e.name == name })]; e.state !=
				console.Failed || !strings.HasSuffix(e.why, errStopped.Error()) {
				return fmt.Errorf("%s: %s: %s", name, e.state, e.why)
			}
			in, err := r.cli.openEmbedded(context.Background(), r.dir, r.in.log)
			if err != nil {
				return err
			}
			defer in.close()
			rec, _, err := in.ledger.Load(context.Background(), demoConnection)
			if err == nil && (rec.Generation != 1 || !shown(rec) || rec.Attempt != nil) {
				err = fmt.Errorf("%s: what had begun is not finished: generation %d, published: %t", name, rec.Generation,
					shown(rec))
			}
			return err
		})
	}
	if err := demos.Wait(); err != nil {
		t.Error(err)
	}
}

// However often and whenever the rotation process is killed, there is a new one, and it
// goes on with what the others had begun.
func TestWorkerKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	r := startDemo(t, testTiming(quickRecovery))
	if err := r.connect(r.link); err != nil {
		t.Fatal(err)
	}
	if err := r.isReady(); err != nil {
		t.Fatal(err)
	}
	before, _, err := r.in.ledger.Load(t.Context(), demoConnection)
	if err != nil {
		t.Fatal(err)
	}
	tr := &trial{lab: r.lab, before: before, presented: len(r.standIn.Presentations())}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 0))
	for range 6 {
		if err := tr.rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		select { // at any moment, before and after the presentation
		case <-time.After(time.Duration(moments.IntN(30)) * time.Millisecond):
		case <-r.standIn.Changed():
		}
		old := r.faults.supervisor.kill()
		if err := r.until("a new process", func() bool {
			p, _ := r.faults.supervisor.running()
			return p != nil && p != old
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.rotateUntil(t.Context(), 0, tr.publishes(t.Context())); err != nil {
		t.Error(err)
	}
	if err := r.isNormal(); err != nil {
		t.Error(err)
	}
}

// A process that is being started with the old clock while another clock is asked for is
// replaced.
func TestSupervisorChangesTheClockOfAStartingWorker(t *testing.T) {
	t.Parallel()
	starts, proceed := make(chan struct{}, 10), make(chan struct{}, 10)
	worker := func(time.Duration) *exec.Cmd {
		starts <- struct{}{}
		<-proceed
		return exec.Command("sh", "-c", `echo '{"ready":true}'; cat >/dev/null`)
	}
	proceed <- struct{}{}
	s, err := newSupervisor(worker, newQueue(time.Now), &noticeBoard{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	<-starts
	s.kill()
	<-starts // with the clock that is right
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	restarted := make(chan error, 1)
	go func() { restarted <- s.restart(ctx, time.Hour) }()
	for s.wantedClock() == 0 && ctx.Err() == nil { // nothing else shows that restart has begun
		time.Sleep(time.Millisecond)
	}
	close(proceed)
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	if p, _ := s.running(); p == nil || p.clock != time.Hour {
		t.Errorf("%+v runs", p)
	}
}

// A program that is no worker is an error at the start.
func TestSupervisorNeedsAWorker(t *testing.T) {
	t.Parallel()
	for what, command := range map[string]func(time.Duration) *exec.Cmd{
		"ends at once": func(time.Duration) *exec.Cmd { return exec.Command(os.Args[0], "-test.run=^$") },
		"is missing":   func(time.Duration) *exec.Cmd { return exec.Command(filepath.Join(t.TempDir(), "tokenturn")) },
	} {
		if _, err := newSupervisor(command, newQueue(time.Now), &noticeBoard{}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("a program that %s is taken for a worker", what)
		}
	}
}
