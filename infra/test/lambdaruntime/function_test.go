package lambdaruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var build struct {
	sync.Once
	path string
	err  error
}

// echo builds testdata/echo once and deploys it.
func echo(t *testing.T, who string, timeout time.Duration) (*Function, *bytes.Buffer) {
	t.Helper()
	build.Do(func() {
		var dir string
		if dir, build.err = os.MkdirTemp("", "lambdaruntime-"); build.err != nil {
			return
		}
		build.path = filepath.Join(dir, "bootstrap")
		out, err := exec.Command("go", "build", "-tags", "lambda.norpc", "-o", build.path, "./testdata/echo").CombinedOutput()
		if err != nil {
			build.err = fmt.Errorf("building the test function: %w\n%s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	var log bytes.Buffer
	f := New(Config{Name: "echo", Bootstrap: build.path, Env: map[string]string{"WHO": who}, Timeout: timeout, Log: &log})
	t.Cleanup(f.Kill)
	return f, &log
}

func TestMain(m *testing.M) {
	code := m.Run()
	if build.path != "" {
		_ = os.RemoveAll(filepath.Dir(build.path))
	}
	os.Exit(code)
}

type reply struct {
	Text   string `json:"text"`
	PID    int    `json:"pid"`
	LeftMS int64  `json:"left_ms"`
	Who    string `json:"who"`
	Home   string `json:"home"`
}

func say(t *testing.T, f *Function, text string) reply {
	t.Helper()
	body, err := f.Invoke(t.Context(), fmt.Appendf(nil, `{"do":"echo","text":%q}`, text))
	if err != nil {
		t.Fatal(err)
	}
	var r reply
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return r
}

// untilExists waits for the file that a hanging function makes.
func untilExists(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never appeared", path)
		}
		time.Sleep(5 * time.Millisecond) // another process's file: nothing here to wait on
	}
}

func TestOneEnvironmentServesEventsInARow(t *testing.T) {
	f, log := echo(t, "me", 20*time.Second)
	t.Setenv("HOME", "/should/not/be/seen")
	first, second := say(t, f, "one"), say(t, f, "two")
	if first.Text != "one" || second.Text != "two" || first.PID != second.PID || f.ColdStarts() != 1 {
		t.Errorf("got %+v and %+v after %d cold starts, want one process to serve both", first, second, f.ColdStarts())
	}
	if first.Who != "me" || first.Home != "" {
		t.Errorf("the function sees WHO=%q HOME=%q, want only its own variables", first.Who, first.Home)
	}
	if first.LeftMS < 10_000 || first.LeftMS > 20_000 {
		t.Errorf("the function had %d ms left, want just under the timeout of 20 s", first.LeftMS)
	}
	f.Kill()
	if !strings.Contains(log.String(), "handling echo") {
		t.Errorf("log %q lacks what the function printed", log)
	}
}

func TestEventsAtOnceGetEnvironmentsOfTheirOwn(t *testing.T) {
	f, _ := echo(t, "me", 20*time.Second)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 3 {
		file := filepath.Join(dir, fmt.Sprint(i))
		wg.Go(func() {
			_, err := f.Invoke(ctx, fmt.Appendf(nil, `{"do":"hang","file":%q}`, file))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want the context's error", err)
			}
		})
		untilExists(t, file)
	}
	if say(t, f, "beside"); f.ColdStarts() != 4 {
		t.Errorf("%d cold starts, want 4: three are busy", f.ColdStarts())
	}
	cancel()
	wg.Wait()
	if say(t, f, "after"); f.ColdStarts() != 4 {
		t.Errorf("%d cold starts, want the idle environment to be used again", f.ColdStarts())
	}
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		event string
		want  Failure
		says  string
		fresh bool // the next event needs another environment
	}{
		"error":  {`{"do":"fail","text":"no such thing"}`, Reported, "no such thing", false},
		"panic":  {`{"do":"panic","text":"at the wheel"}`, Reported, "at the wheel", true}, // answers, then exits
		"exit":   {`{"do":"exit"}`, Exited, "exit status 3", true},
		"syntax": {`{"do":1}`, Reported, "cannot unmarshal number", false},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := echo(t, "me", 20*time.Second)
			_, err := f.Invoke(t.Context(), []byte(c.event))
			if FailureOf(err) != c.want || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want it to have %s and say %q", err, c.want, c.says)
			}
			starts := 1
			if c.fresh {
				starts = 2
			}
			if say(t, f, "again"); f.ColdStarts() != starts {
				t.Errorf("%d cold starts, want %d", f.ColdStarts(), starts)
			}
		})
	}
}

func TestTimeoutKills(t *testing.T) {
	f, _ := echo(t, "me", 300*time.Millisecond)
	_, err := f.Invoke(t.Context(), fmt.Appendf(nil, `{"do":"hang","file":%q}`, filepath.Join(t.TempDir(), "x")))
	if FailureOf(err) != TimedOut {
		t.Fatalf("got %v, want a timeout", err)
	}
}

func TestKillInTheMiddle(t *testing.T) {
	f, _ := echo(t, "me", 20*time.Second)
	file := filepath.Join(t.TempDir(), "there")
	result := make(chan error, 1)
	go func() {
		_, err := f.Invoke(t.Context(), fmt.Appendf(nil, `{"do":"hang","file":%q}`, file))
		result <- err
	}()
	untilExists(t, file)
	f.Kill()
	if err := <-result; FailureOf(err) != Exited || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("got %v, want a killed process", err)
	}
	if say(t, f, "again"); f.ColdStarts() != 2 {
		t.Errorf("%d cold starts, want 2", f.ColdStarts())
	}
}

func TestProcessThatDoesNotStart(t *testing.T) {
	f, _ := echo(t, "broken", time.Second)
	_, err := f.Invoke(t.Context(), []byte(`{}`))
	if FailureOf(err) != NotStarted || !strings.Contains(err.Error(), "WHO is broken") {
		t.Fatalf("got %v, want what it said before it exited", err)
	}
	missing := New(Config{Name: "missing", Bootstrap: filepath.Join(t.TempDir(), "none"), Timeout: time.Second})
	if _, err := missing.Invoke(t.Context(), nil); FailureOf(err) != NotStarted {
		t.Fatalf("got %v, want not started", err)
	}
}
