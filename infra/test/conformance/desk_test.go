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

// desk is one machine with the operator's command on the embedded store, beside
// a real Doorkeeper.
type desk struct {
	t        *testing.T
	provider *provider
	home     string
	said     lockedBuffer // all that the command wrote, but for tokens that were asked for
	secrets  []string     // none of which may be in it
}

// TestOperatorsDesk connects out of band, by a loopback redirect and by import,
// with app credentials that Doorkeeper was asked about, in both of its ways and
// with tokens that live 15 minutes and 5 seconds.
func TestOperatorsDesk(t *testing.T) {
	t.Parallel()
	for _, grace := range []int{0, 1} {
		for _, lifetime := range []time.Duration{900 * time.Second, 5 * time.Second} {
			t.Run(fmt.Sprintf("GRACE=%d %v", grace, lifetime), func(t *testing.T) {
				t.Parallel()
				d := &desk{t: t, provider: startProvider(t, grace, lifetime), home: t.TempDir()}
				d.credentials("installed", d.provider.outOfBand[0], d.provider.outOfBand[1], "urn:ietf:wg:oauth:2.0:oob")
				back := fmt.Sprintf("http://127.0.0.1:%s/callback", freePort(t))
				d.credentials("web", d.provider.clientID, d.provider.clientSecret, back)

				code := d.outOfBand("installed/acme", "", 0)
				d.outOfBand("installed/acme", code, 3) // which Doorkeeper has spent
				d.loopback("web/acme")
				d.imports("web/moved")
				for _, connection := range []string{"installed/acme", "web/acme", "web/moved"} {
					d.works(connection)
				}
				if out := d.run(0, "", "--json", "connection", "rotate", "--all"); !strings.Contains(out, `"rotated": 3`) {
					t.Errorf("rotating all answers %s", out)
				}
				for _, connection := range []string{"installed/acme", "web/acme", "web/moved"} {
					d.works(connection)
				}
				d.examined()
				t.Logf("GRACE=%d %v: out of band, loopback and import connected, repeated code and token refused, "+
					"%d pairs issued; %s",
					grace, lifetime, len(d.provider.issued().Tokens), d.keepsSecrets())
			})
		}
	}
}

// command is the operator's on this machine.
func (d *desk) command(arguments ...string) *exec.Cmd {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), built(d.t, buildCommand), arguments...)
	cmd.Env = append(osVariables(), "HOME="+d.home)
	return cmd
}

// run wants an exit code and returns what is answered on standard output.
func (d *desk) run(want int, input string, arguments ...string) string {
	d.t.Helper()
	cmd := d.command(arguments...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &d.said
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != want {
		d.t.Fatalf("tokenturn %q exits with %d, want %d: %s\n%s", arguments, got, want, out.String(), d.said.tail(2000))
	}
	if arguments[0] != "token" {
		_, _ = d.said.Write(out.Bytes())
	}
	return out.String()
}

// credentials stores an app, after Doorkeeper has refused it with a wrong secret.
func (d *desk) credentials(environment, id, secret, redirect string) {
	d.t.Helper()
	d.secrets = append(d.secrets, secret)
	value := func(secret string) string {
		text, _ := json.Marshal(map[string]string{"client_id": id, "client_secret": secret, "redirect_uri": redirect,
			"login_url": d.provider.url, "api_url": d.provider.url})
		return string(text)
	}
	d.run(1, value("not-"+secret), "app", "set", environment, "--stdin")
	d.run(4, "", "app", "show", environment)
	if out := d.run(0, value(secret), "--json", "app", "set", environment, "--stdin"); !strings.Contains(out,
		`"check": "accepted"`) {
		d.t.Errorf("app set answers %s", out)
	}
}

var authorizeAddress = regexp.MustCompile(`http://\S+/oauth/authorize\?\S+`)

// begin starts `connection authorize` and returns once it has printed the
// address to open.
func (d *desk) begin(arguments ...string) (stdin io.WriteCloser, address string, ended func() int) {
	d.t.Helper()
	cmd := d.command(append([]string{"connection", "authorize"}, arguments...)...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd.Stdout = &d.said
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	talk := bufio.NewScanner(io.TeeReader(stderr, &d.said))
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
func (d *desk) outOfBand(connection, code string, want int) string {
	d.t.Helper()
	stdin, address, ended := d.begin(connection)
	if code == "" {
		code = d.drive("code", address)
		d.secrets = append(d.secrets, code)
	}
	if _, err := fmt.Fprintf(stdin, "%s/oauth/authorize/native?code=%s\n", d.provider.url, code); err != nil {
		d.t.Fatal(err)
	}
	if got := ended(); got != want {
		d.t.Fatalf("authorizing %s exits with %d, want %d:\n%s", connection, got, want, d.said.tail(2000))
	}
	return code
}

// loopback lets a browser bring the code.
func (d *desk) loopback(connection string) {
	d.t.Helper()
	_, address, ended := d.begin(connection, "--loopback")
	d.drive("browse", address)
	if got := ended(); got != 0 {
		d.t.Fatalf("authorizing %s by loopback exits with %d:\n%s", connection, got, d.said.tail(2000))
	}
}

// imports takes over a refresh token that somebody else got, once.
func (d *desk) imports(connection string) {
	d.t.Helper()
	form := url.Values{"client_id": {d.provider.clientID}, "redirect_uri": {"http://127.0.0.1:8080/callback"},
		"response_type": {"code"}}
	code := d.drive("code", d.provider.url+"/oauth/authorize?"+form.Encode())
	answer, err := http.PostForm(d.provider.url+"/oauth/token", url.Values{"grant_type": {"authorization_code"},
		"code":         {code},
		"redirect_uri": {"http://127.0.0.1:8080/callback"}, "client_id": {d.provider.clientID},
		"client_secret": {d.provider.clientSecret}})
	if err != nil {
		d.t.Fatal(err)
	}
	defer answer.Body.Close()
	var pair struct {
		Refresh string `json:"refresh_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&pair); err != nil || pair.Refresh == "" {
		d.t.Fatalf("Doorkeeper gave no refresh token: %v", err)
	}
	d.secrets = append(d.secrets, pair.Refresh)
	if out := d.run(0, pair.Refresh+"\n", "--json", "connection", "import", connection); !strings.Contains(out,
		`"outcome": "rotated"`) {
		d.t.Errorf("importing answers %s", out)
	}
	d.run(2, pair.Refresh+"\n", "connection", "import", "web/twice")
}

func (d *desk) drive(mode, address string) string {
	d.t.Helper()
	out, err := exec.CommandContext(d.t.Context(), "../peers/doorkeeper/drive", mode, d.provider.url,
		address).CombinedOutput()
	if err != nil {
		d.t.Fatalf("drive %s: %v: %s", mode, err, out)
	}
	return strings.TrimSpace(string(out))
}

// works asks Doorkeeper for whom the printed token speaks.
func (d *desk) works(connection string) {
	d.t.Helper()
	token := strings.TrimSpace(d.run(0, "", "token", "print", connection, "--min-ttl", "2s"))
	request, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.provider.url+"/rest/v1.0/me", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		d.t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		d.t.Errorf("the token of %s is answered with %d", connection, answer.StatusCode)
	}
}

// examined lets the doctor look and checks that no refresh token was spent for it.
func (d *desk) examined() {
	d.t.Helper()
	before := len(d.provider.issued().Tokens)
	out := d.run(0, "", "--json", "connection", "show", "installed/acme", "--probe")
	if !strings.Contains(out, `"health": "works"`) {
		d.t.Errorf("probing answers %s", out)
	}
	cmd := d.command("--json", "doctor")
	all, _ := cmd.Output()
	_, _ = d.said.Write(all)
	var a struct {
		Findings []struct{ Check, Subject, Level, Detail string } `json:"findings"`
	}
	if err := json.Unmarshal(all, &a); err != nil {
		d.t.Fatalf("%v: %s", err, all)
	}
	accepted := 0
	for _, f := range a.Findings {
		if f.Check == "app" && f.Level == "ok" {
			accepted++
		}
	}
	if accepted != 2 {
		d.t.Errorf("%d apps are accepted: %s", accepted, all)
	}
	if after := len(d.provider.issued().Tokens); after != before {
		d.t.Errorf("looking made %d new pairs", after-before)
	}
}

// keepsSecrets searches what was said for everything that Doorkeeper ever gave.
func (d *desk) keepsSecrets() string {
	d.t.Helper()
	secrets := d.secrets
	for _, pair := range d.provider.issued().Tokens {
		secrets = append(secrets, pair.Access, pair.Refresh)
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(d.said.String(), secret) {
			d.t.Errorf("a secret was said")
		}
	}
	return fmt.Sprintf("%d secrets in none of %d bytes", len(secrets), len(d.said.String()))
}
