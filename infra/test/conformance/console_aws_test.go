//go:build conformance

package conformance

import (
	"bufio"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestConsoleInAWS: the console over a deployed table shows its connections. It writes
// nothing, unless actions are allowed.
func TestConsoleInAWS(t *testing.T) {
	t.Parallel()
	in := install(t, startCloud(t), startProvider(t, 0, time.Hour), "console", patient)
	in.connect("peer/acme")
	_, mark := in.tap.since(0)

	shown := in.console()
	for _, path := range []string{"/", "/connections/peer/acme"} {
		page := shown.get(path)
		if !strings.Contains(page, "acme") || !strings.Contains(page, "active") || strings.Contains(page, "Rotate now") {
			t.Errorf("%s of a read-only console:\n%s", path, page)
		}
	}
	if status, page := shown.post("/connections/peer/acme/rotate"); status != http.StatusForbidden {
		t.Errorf("a read-only console answers %d to a rotation:\n%s", status, page)
	}
	in.wroteNothing(mark, 3)
	shown.end()

	before := shown.generation
	acts := in.console("--allow-actions")
	if page := acts.get("/connections/peer/acme"); !strings.Contains(page, "Rotate now") {
		t.Errorf("no button:\n%s", page)
	}
	if status, page := acts.post("/connections/peer/acme/rotate"); status != http.StatusOK {
		t.Errorf("a rotation answers %d:\n%s", status, page)
	}
	if acts.get("/connections/peer/acme"); acts.generation == before {
		t.Errorf("the generation is still %s", before)
	}
	acts.end()
	t.Log(in.keepsSecrets())
}

// shownConsole is a running `tokenturn console`, and a browser without script.
type shownConsole struct {
	in         *installation
	address    string
	browser    *http.Client
	csrf       string
	generation string
	end        func()
}

var (
	consoleAddress = regexp.MustCompile(`http://localhost:\d+`)
	csrfField      = regexp.MustCompile(`name="csrf" value="([^"]+)"`)
	generationText = regexp.MustCompile(`generation (\d+\.\d+)`)
)

func (in *installation) console(arguments ...string) *shownConsole {
	in.t.Helper()
	cmd := in.command(append([]string{"console", "--addr", "localhost:0"}, arguments...)...)
	output, err := cmd.StderrPipe()
	if err != nil {
		in.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		in.t.Fatal(err)
	}
	jar, _ := cookiejar.New(nil)
	c := &shownConsole{in: in, browser: &http.Client{Jar: jar}}
	c.end = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			in.t.Errorf("the console ends with %v", err)
		}
	}
	lines := bufio.NewScanner(io.TeeReader(output, &in.logs))
	for c.address == "" && lines.Scan() {
		c.address = consoleAddress.FindString(lines.Text())
	}
	if c.address == "" {
		in.t.Fatal("the console has not started")
	}
	go func() { _, _ = io.Copy(&in.logs, output) }()
	return c
}

func (c *shownConsole) get(path string) string {
	c.in.t.Helper()
	answer, err := c.browser.Get(c.address + path)
	if err != nil {
		c.in.t.Fatal(err)
	}
	return c.read(answer)
}

func (c *shownConsole) post(path string) (status int, page string) {
	c.in.t.Helper()
	answer, err := c.browser.PostForm(c.address+path, url.Values{"csrf": {c.csrf}})
	if err != nil {
		c.in.t.Fatal(err)
	}
	return answer.StatusCode, c.read(answer)
}

func (c *shownConsole) read(answer *http.Response) string {
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		c.in.t.Fatal(err)
	}
	_, _ = c.in.logs.Write(text)
	if found := csrfField.FindSubmatch(text); found != nil {
		c.csrf = string(found[1])
	}
	if found := generationText.FindSubmatch(text); found != nil {
		c.generation = string(found[1])
	}
	return string(text)
}
