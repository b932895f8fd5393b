//go:build conformance

package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// operatorCLI is the tokenturn command on one machine, with the embedded store
// and a real Doorkeeper.
type operatorCLI struct {
	t        *testing.T
	provider *provider
	home     string
	said     lockedBuffer // everything that the command wrote except the tokens that were asked for
	secrets  []string     // none of which may be in it
}

// TestOperatorCLI connects out of band, by a loopback redirect and by import, with
// app credentials that the command checks with Doorkeeper, with and without overlap
// of the pairs, and with tokens that live 15 minutes and 5 seconds.
func TestOperatorCLI(t *testing.T) {
	t.Parallel()
	for _, grace := range []int{0, 1} {
		for _, lifetime := range []time.Duration{900 * time.Second, 5 * time.Second} {
			t.Run(fmt.Sprintf("GRACE=%d %v", grace, lifetime), func(t *testing.T) {
				t.Parallel()
				c := &operatorCLI{t: t, provider: startProvider(t, grace, lifetime), home: t.TempDir()}
				c.credentials("installed", c.provider.outOfBand[0], c.provider.outOfBand[1], "urn:ietf:wg:oauth:2.0:oob")
				back := fmt.Sprintf("http://127.0.0.1:%s/callback", freePort(t))
				c.credentials("web", c.provider.clientID, c.provider.clientSecret, back)

				code := c.outOfBand("installed/acme", "", 0)
				c.outOfBand("installed/acme", code, 3) // which Doorkeeper has spent
				c.loopback("web/acme")
				c.imports("web/moved")
				for _, connection := range []string{"installed/acme", "web/acme", "web/moved"} {
					c.works(connection)
				}
				if out := c.run(0, "", "--json", "connection", "rotate", "--all"); !strings.Contains(out, `"rotated": 3`) {
					t.Errorf("rotating all answers %s", out)
				}
				for _, connection := range []string{"installed/acme", "web/acme", "web/moved"} {
					c.works(connection)
				}
				c.examined()
				t.Logf("GRACE=%d %v: out of band, loopback and import connected, repeated code and token refused, "+
					"%d pairs issued; %s",
					grace, lifetime, len(c.provider.issued().Tokens), c.keepsSecrets())
			})
		}
	}
}

// command is the tokenturn command on this machine.
func (c *operatorCLI) command(arguments ...string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), built(c.t, buildCommand), arguments...)
	cmd.Env = append(osVariables(), "HOME="+c.home)
	return cmd
}

// run expects an exit code and returns the standard output.
func (c *operatorCLI) run(want int, input string, arguments ...string) string {
	c.t.Helper()
	cmd := c.command(arguments...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &c.said
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != want {
		c.t.Fatalf("tokenturn %q exits with %d, want %d: %s\n%s", arguments, got, want, out.String(), c.said.tail(2000))
	}
	if arguments[0] != "token" {
		_, _ = c.said.Write(out.Bytes())
	}
	return out.String()
}

// credentials stores an app, after Doorkeeper has refused it with a wrong secret.
func (c *operatorCLI) credentials(environment, id, secret, redirect string) {
	c.t.Helper()
	c.secrets = append(c.secrets, secret)
	value := func(secret string) string {
		text, _ := json.Marshal(map[string]string{"client_id": id, "client_secret": secret, "redirect_uri": redirect,
			"login_url": c.provider.url, "api_url": c.provider.url})
		return string(text)
	}
	c.run(1, value("not-"+secret), "app", "set", environment, "--stdin")
	c.run(4, "", "app", "show", environment)
	if out := c.run(0, value(secret), "--json", "app", "set", environment, "--stdin"); !strings.Contains(out,
		`"check": "accepted"`) {
		c.t.Errorf("app set answers %s", out)
	}
}

var authorizeAddress = regexp.MustCompile(`http://\S+/oauth/authorize\?\S+`)

// begin starts `connection authorize` and returns once it has printed the
// address to open.
func (c *operatorCLI) begin(arguments ...string) (stdin io.WriteCloser, address string, ended func() int) {
	c.t.Helper()
	cmd := c.command(append([]string{"connection", "authorize"}, arguments...)...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd.Stdout = &c.said
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	talk := bufio.NewScanner(io.TeeReader(stderr, &c.said))
	for address == "" && talk.Scan() {
		address = authorizeAddress.FindString(talk.Text())
	}
	rest := make(chan struct{})
	go func() {
		defer close(rest)
		for talk.Scan() {
		}
	}()
	return stdin, address, func() int {
		<-rest
		_ = cmd.Wait()
		return cmd.ProcessState.ExitCode()
	}
}

// outOfBand pastes the code that Doorkeeper's page shows, or another one.
func (c *operatorCLI) outOfBand(connection, code string, want int) string {
	c.t.Helper()
	stdin, address, ended := c.begin(connection)
	if code == "" {
		code = c.drive("code", address)
		c.secrets = append(c.secrets, code)
	}
	if _, err := fmt.Fprintf(stdin, "%s/oauth/authorize/native?code=%s\n", c.provider.url, code); err != nil {
		c.t.Fatal(err)
	}
	if got := ended(); got != want {
		c.t.Fatalf("authorizing %s exits with %d, want %d:\n%s", connection, got, want, c.said.tail(2000))
	}
	return code
}

// loopback lets a browser bring the code.
func (c *operatorCLI) loopback(connection string) {
	c.t.Helper()
	_, address, ended := c.begin(connection, "--loopback")
	c.drive("browse", address)
	if got := ended(); got != 0 {
		c.t.Fatalf("authorizing %s by loopback exits with %d:\n%s", connection, got, c.said.tail(2000))
	}
}

// imports imports a refresh token that another program got, which works once.
func (c *operatorCLI) imports(connection string) {
	c.t.Helper()
	form := url.Values{"client_id": {c.provider.clientID}, "redirect_uri": {"http://127.0.0.1:8080/callback"},
		"response_type": {"code"}}
	code := c.drive("code", c.provider.url+"/oauth/authorize?"+form.Encode())
	answer, err := http.PostForm(c.provider.url+"/oauth/token", url.Values{"grant_type": {"authorization_code"},
		"code":         {code},
		"redirect_uri": {"http://127.0.0.1:8080/callback"}, "client_id": {c.provider.clientID},
		"client_secret": {c.provider.clientSecret}})
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	var pair struct {
		Refresh string `json:"refresh_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&pair); err != nil || pair.Refresh == "" {
		c.t.Fatalf("Doorkeeper gave no refresh token: %v", err)
	}
	c.secrets = append(c.secrets, pair.Refresh)
	if out := c.run(0, pair.Refresh+"\n", "--json", "connection", "import", connection); !strings.Contains(out,
		`"outcome": "rotated"`) {
		c.t.Errorf("importing answers %s", out)
	}
	c.run(2, pair.Refresh+"\n", "connection", "import", "web/twice")
}

func (c *operatorCLI) drive(mode, address string) string {
	c.t.Helper()
	out, err := exec.CommandContext(c.t.Context(), "../peers/doorkeeper/drive", mode, c.provider.url,
		address).CombinedOutput()
	if err != nil {
		c.t.Fatalf("drive %s: %v: %s", mode, err, out)
	}
	return strings.TrimSpace(string(out))
}

// works calls Doorkeeper's API with the printed token.
func (c *operatorCLI) works(connection string) {
	c.t.Helper()
	token := strings.TrimSpace(c.run(0, "", "token", "print", connection, "--min-ttl", "2s"))
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.provider.url+"/rest/v1.0/me", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		c.t.Errorf("the token of %s is answered with %d", connection, answer.StatusCode)
	}
}

// examined runs the doctor and checks that it used no refresh token.
func (c *operatorCLI) examined() {
	c.t.Helper()
	before := len(c.provider.issued().Tokens)
	out := c.run(0, "", "--json", "connection", "show", "installed/acme", "--probe")
	if !strings.Contains(out, `"health": "works"`) {
		c.t.Errorf("probing answers %s", out)
	}
	cmd := c.command("--json", "doctor")
	all, _ := cmd.Output()
	_, _ = c.said.Write(all)
	var a struct {
		Findings []struct{ Check, Subject, Level, Detail string } `json:"findings"`
	}
	if err := json.Unmarshal(all, &a); err != nil {
		c.t.Fatalf("%v: %s", err, all)
	}
	accepted := 0
	for _, f := range a.Findings {
		if f.Check == "app" && f.Level == "ok" {
			accepted++
		}
	}
	if accepted != 2 {
		c.t.Errorf("%d apps are accepted: %s", accepted, all)
	}
	if after := len(c.provider.issued().Tokens); after != before {
		c.t.Errorf("looking made %d new pairs", after-before)
	}
}

// keepsSecrets searches the output for everything that Doorkeeper ever issued.
func (c *operatorCLI) keepsSecrets() string {
	c.t.Helper()
	secrets := c.secrets
	for _, pair := range c.provider.issued().Tokens {
		secrets = append(secrets, pair.Access, pair.Refresh)
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(c.said.String(), secret) {
			c.t.Errorf("a secret is in the output")
		}
	}
	return fmt.Sprintf("%d secrets in none of %d bytes", len(secrets), len(c.said.String()))
}
