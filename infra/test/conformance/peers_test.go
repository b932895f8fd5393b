//go:build conformance

package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// startPeer runs a starter of ../peers on a free port until the test ends, and
// returns the lines it printed up to the one that begins with ready. The peer
// stops when its standard input does, so it cannot outlive this process.
func startPeer(t *testing.T, starter, ready string, options ...string) []string {
	t.Helper()
	var errors lockedBuffer
	cmd := exec.Command(starter, append([]string{"0", "--exit-on-stdin-eof"}, options...)...)
	cmd.Stderr = &errors
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", starter, err)
	}
	exited := make(chan struct{})
	lines, found := make(chan []string, 1), make(chan struct{})
	go func() {
		var seen []string
		scanner := bufio.NewScanner(stdout)
		for scanner.Scan() {
			seen = append(seen, scanner.Text())
			if strings.HasPrefix(scanner.Text(), ready) {
				lines <- seen
				close(found)
				break
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		select {
		case <-exited:
		case <-time.After(15 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
			t.Errorf("%s did not stop at the end of its standard input", starter)
		}
		if t.Failed() && errors.String() != "" {
			t.Logf("%s said:\n%s", starter, errors.tail(4000))
		}
	})
	select {
	case <-found:
		return <-lines
	case <-exited:
		t.Fatalf("%s cannot run here, and nothing replaces it:\n%s", starter, errors.tail(4000))
	case <-time.After(5 * time.Minute): // the first start may install packages
		t.Fatalf("%s did not come up:\n%s", starter, errors.tail(4000))
	}
	return nil
}

// cloud is a running moto with the documented version rules.
type cloud struct {
	t   *testing.T
	url string
}

func startCloud(t *testing.T, options ...string) *cloud {
	t.Helper()
	const ready = "listening on "
	lines := startPeer(t, "../peers/aws/start", ready, options...)
	return &cloud{t, strings.TrimPrefix(lines[len(lines)-1], ready)}
}

// faults makes moto misbehave from now on: a share of writes is done but not
// answered, a share of calls is throttled.
func (c *cloud) faults(lose, refuse float64) {
	c.t.Helper()
	body, _ := json.Marshal(map[string]float64{"lose": lose, "refuse": refuse})
	answer, err := http.Post(c.url+"/_strict/faults", "application/json", bytes.NewReader(body))
	if err != nil || answer.StatusCode != http.StatusOK {
		c.t.Fatalf("setting faults: %v %v", answer, err)
	}
	_ = answer.Body.Close()
}

// cloudCall is one line of moto's log.
type cloudCall struct {
	N       int    `json:"n"`
	Who     string `json:"who"`
	Service string `json:"svc"`
	Op      string `json:"op"`
	Status  string `json:"status"`
	Fault   string `json:"fault"`
}

// log returns moto's calls after number n, and the number of the last one.
func (c *cloud) log(n int) (calls []cloudCall, last int) {
	c.t.Helper()
	answer, err := http.Get(c.url + "/_strict/log")
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	last = n
	for decoder := json.NewDecoder(answer.Body); decoder.More(); {
		var call cloudCall
		if err := decoder.Decode(&call); err != nil {
			c.t.Fatal(err)
		}
		if call.N > n {
			calls, last = append(calls, call), call.N
		}
	}
	return calls, last
}

// provider is a running Doorkeeper.
type provider struct {
	t            *testing.T
	url          string
	clientID     string
	clientSecret string
	outOfBand    [2]string     // client id and secret of the app without a redirect URI
	lifetime     time.Duration // of access tokens
}

// grace tells Doorkeeper's two ways apart: with it the old pair dies when the
// new access token is first used, without it at the refresh.
func startProvider(t *testing.T, grace int, lifetime time.Duration) *provider {
	t.Helper()
	return startProviderFor(t, grace, lifetime, redirectURI)
}

func startProviderFor(t *testing.T, grace int, lifetime time.Duration, redirectURI string) *provider {
	t.Helper()
	const ready = "ready "
	lines := startPeer(t, "../peers/doorkeeper/start", ready, "--grace", strconv.Itoa(grace),
		"--expires-in", strconv.Itoa(int(lifetime.Seconds())), "--redirect-uri", redirectURI, "--auto-login", "--threads",
		"16")
	p := &provider{t: t, url: strings.TrimPrefix(lines[len(lines)-1], ready), lifetime: lifetime}
	var info struct {
		Web struct {
			ClientID     string `json:"client_id"`
			ClientSecret string `json:"client_secret"`
		} `json:"web"`
		OOB struct {
			ClientID     string `json:"client_id"`
			ClientSecret string `json:"client_secret"`
		} `json:"oob"`
		Versions map[string]string `json:"versions"`
	}
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "info "); ok {
			if err := json.Unmarshal([]byte(text), &info); err != nil {
				t.Fatal(err)
			}
		}
	}
	if info.Web.ClientSecret == "" {
		t.Fatalf("Doorkeeper printed no client secret: %q", lines)
	}
	p.clientID, p.clientSecret = info.Web.ClientID, info.Web.ClientSecret
	p.outOfBand = [2]string{info.OOB.ClientID, info.OOB.ClientSecret}
	return p
}

// issued is what Doorkeeper has in its tables.
type issued struct {
	Tokens []struct {
		Access  string `json:"token"`
		Refresh string `json:"refresh_token"`
		Revoked bool   `json:"revoked"`
	} `json:"access_tokens"`
	Codes []struct {
		Code    string `json:"token"`
		Revoked bool   `json:"revoked"`
	} `json:"access_grants"`
}

func (p *provider) issued() issued {
	p.t.Helper()
	answer, err := http.Get(p.url + "/_test/tokens")
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	var all issued
	if err := json.NewDecoder(answer.Body).Decode(&all); err != nil {
		p.t.Fatal(err)
	}
	return all
}

// withdraw is the user taking the consent back.
func (p *provider) withdraw() {
	p.t.Helper()
	answer, err := http.Post(p.url+"/_test/revoke_all", "application/x-www-form-urlencoded", nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		p.t.Fatalf("withdrawing consent: %v %v", answer, err)
	}
	_ = answer.Body.Close()
}

// lockedBuffer collects the output of several processes.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func (b *lockedBuffer) tail(n int) string {
	text := b.String()
	return text[max(0, len(text)-n):]
}
