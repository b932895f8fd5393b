package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tokenturn": recorded, "xdg-open": browse})
}

// recorded is main with all that it says kept in the directory that $RECORD
// names, apart from the one answer that has to contain a token. Without $RECORD it
// is main, and can be at a terminal.
func recorded() {
	if os.Getenv(parseOnly) != "" {
		os.Exit(parse(os.Args[1:], os.Stdout, os.Stderr))
	}
	if os.Getenv("RECORD") == "" {
		main()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	record := func(name string, w io.Writer) io.Writer {
		f, err := os.OpenFile(filepath.Join(os.Getenv("RECORD"), name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			panic(err)
		}
		return io.MultiWriter(w, f)
	}
	stdout := io.Writer(os.Stdout)
	if !slices.Contains(os.Args, "print") {
		stdout = record("stdout", stdout)
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdin, stdout, record("stderr", os.Stderr), os.Environ()))
}

// scriptEnv is what a script has around it besides its files.
type scriptEnv struct {
	record  string
	standIn *procoretest.Server
	app     procoretest.App // and one more that scripts may make
	another procoretest.App
	seen    int // presentations that cmdPresented has looked at
	secrets []token.Secret
	release chan struct{}
	aws     *fakeAWS
	served  *exec.Cmd // by cmdRemedy
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			w := &scriptEnv{record: filepath.Join(env.WorkDir, ".record")}
			env.Values["env"] = w
			env.Setenv("RECORD", w.record)
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("GORACE", os.Getenv("GORACE"))
			env.Setenv("AWS_EC2_METADATA_DISABLED", "true") // no script finds credentials on the machine that runs it
			env.Defer(func() {
				w.searchForSecrets(env.T().(fataler))
				if w.standIn != nil {
					w.standIn.Close()
				}
			})
			return os.Mkdir(w.record, 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"standin":         cmdStandIn,
			"lifetime":        cmdLifetime,
			"service-account": cmdServiceAccount,
			"revoke":          cmdRevoke,
			"reset":           cmdReset,
			"another":         cmdAnother,
			"issue":           cmdIssue,
			"presented":       cmdPresented,
			"uninstall":       cmdUninstall,
			"lose":            cmdLose,
			"gateway":         cmdGateway,
			"contradict":      cmdContradict,
			"hold":            cmdHold,
			"release":         cmdRelease,
			"exits":           cmdExits,
			"until":           cmdUntil,
			"address":         cmdAddress,
			"authorize":       cmdAuthorize,
			"visit":           cmdVisit,
			"page":            cmdPage,
			"show":            cmdShow,
			"console":         cmdConsole,
			"post":            cmdPost,
			"ask":             cmdAsk,
			"id":              cmdID,
			"pairs":           cmdPairs,
			"standin-down":    func(ts *testscript.TestScript, _ bool, _ []string) { envOf(ts).standIn.Close() },
			"await":           cmdAwait,
			"sql":             cmdSQL,
			"remedy":          cmdRemedy,
			"live":            cmdLive,
			"foreign":         cmdForeign,
			"unserve":         cmdStop,
			"aws":             cmdAWS,
			"asked":           cmdAsked,
		},
	})
}

type fataler interface{ Fatal(args ...any) }

func envOf(ts *testscript.TestScript) *scriptEnv { return ts.Value("env").(*scriptEnv) }

// searchForSecrets looks for every secret that the script had to do with in
// everything that was said.
func (w *scriptEnv) searchForSecrets(t fataler) {
	secrets := w.secrets
	if w.standIn != nil {
		secrets = append(secrets, w.standIn.Secrets()...)
	}
	for _, name := range []string{"stdout", "stderr"} {
		said, err := os.ReadFile(filepath.Join(w.record, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range secrets {
			if bytes.Contains(said, []byte(s.Reveal())) {
				t.Fatal("a secret was written to " + name)
			}
		}
	}
}

// cmdStandIn starts a stand-in for Procore and writes app credentials for it to
// credentials.json.
func cmdStandIn(ts *testscript.TestScript, _ bool, _ []string) {
	w := envOf(ts)
	w.standIn = procoretest.New()
	w.app = w.standIn.NewApp("http://localhost:8080/callback/demo", procoretest.OutOfBand)
	w.writeCredentials(ts, "credentials.json", w.app)
	ts.Setenv("STANDIN", w.standIn.URL)
	ts.Setenv("CLIENT_ID", w.app.ClientID)
	ts.Setenv("CLIENT_FINGERPRINT", string(w.app.ClientSecret.Fingerprint()))
}

// cmdLifetime sets how long new access tokens live.
func cmdLifetime(ts *testscript.TestScript, _ bool, args []string) {
	lifetime, err := time.ParseDuration(args[0])
	ts.Check(err)
	envOf(ts).standIn.SetLifetime(lifetime)
}

// cmdServiceAccount gives the app a service account in companies.
func cmdServiceAccount(ts *testscript.TestScript, _ bool, args []string) {
	w := envOf(ts)
	w.app.ServiceAccount = nil
	for _, arg := range args {
		company, err := strconv.ParseInt(arg, 10, 64)
		ts.Check(err)
		w.app.ServiceAccount = append(w.app.ServiceAccount, company)
	}
	w.standIn.Register(w.app)
}

// cmdRevoke withdraws the app's access, as a person does in Procore: revoke, or
// revoke another for the other app's.
func cmdRevoke(ts *testscript.TestScript, _ bool, args []string) {
	w := envOf(ts)
	client := w.app.ClientID
	if len(args) > 0 {
		client = w.another.ClientID
	}
	w.standIn.RevokeAll(client, procoretest.DefaultUser().Login)
}

// cmdReset resets the app's secret, as a person does in the Developer Portal,
// and writes the new credentials to reset.json.
func cmdReset(ts *testscript.TestScript, _ bool, _ []string) {
	w := envOf(ts)
	w.app.ClientSecret = token.NewSecret("reset-" + w.app.ClientSecret.Reveal())
	w.standIn.Register(w.app)
	w.writeCredentials(ts, "reset.json", w.app)
	second, err := json.Marshal(map[string]string{"client_secret": w.app.ClientSecret.Reveal()})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("second.json"), second, 0o600))
}

// cmdAnother registers another app and writes its credentials to another.json.
func cmdAnother(ts *testscript.TestScript, _ bool, _ []string) {
	w := envOf(ts)
	w.another = w.standIn.NewApp(w.app.RedirectURIs...)
	w.writeCredentials(ts, "another.json", w.another)
}

// cmdIssue makes pairs outside of tokenturn. Each argument NAME[=CONNECTION] writes
// a refresh token to NAME: alone, or appended as a line of `connection import --batch`.
func cmdIssue(ts *testscript.TestScript, _ bool, args []string) {
	w := envOf(ts)
	for _, arg := range args {
		pair, err := w.standIn.Issue(w.app.ClientID, procoretest.DefaultUser().Login)
		ts.Check(err)
		name, connection, batch := strings.Cut(arg, "=")
		text := pair.RefreshToken.Reveal() + "\n"
		if batch {
			line, err := json.Marshal(map[string]string{"connection": connection, "refresh_token": pair.RefreshToken.Reveal(),
				"company": "4264807"})
			ts.Check(err)
			text = string(line) + "\n"
		}
		f, err := os.OpenFile(ts.MkAbs(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		ts.Check(err)
		_, err = f.WriteString(text)
		ts.Check(errors.Join(err, f.Close()))
	}
}

// cmdPresented wants that nothing but made-up codes and what connects was presented
// since it was last called.
func cmdPresented(ts *testscript.TestScript, _ bool, _ []string) {
	w := envOf(ts)
	all := w.standIn.Presentations()
	for _, p := range all[min(w.seen, len(all)):] {
		if p.Outcome == "granted" && w.seen > 0 || p.Grant == "refresh_token" {
			ts.Fatalf("%+v was presented", p)
		}
	}
	w.seen = len(all)
}

// cmdUninstall takes the app out of the company, as its administrator does.
func cmdUninstall(ts *testscript.TestScript, _ bool, _ []string) {
	w := envOf(ts)
	w.standIn.Uninstall(w.app.ClientID, procoretest.DefaultUser().Companies[0])
}

// cmdGateway makes the stand-in answer the next token request with a page and that status.
func cmdGateway(ts *testscript.TestScript, _ bool, args []string) {
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	envOf(ts).standIn.Script(procoretest.HTML(status))
}

// cmdLose makes the stand-in lose its next answer.
func cmdLose(ts *testscript.TestScript, _ bool, _ []string) {
	envOf(ts).standIn.Script(procoretest.Lost())
}

// cmdContradict makes the stand-in's next answer name two refresh tokens.
func cmdContradict(ts *testscript.TestScript, _ bool, _ []string) {
	envOf(ts).standIn.Script(procoretest.Rewritten(func(sound string) string {
		return strings.TrimSuffix(strings.TrimSpace(sound), "}") +
			`,"refresh_token":"another-refresh-token-of-the-right-length"}`
	}))
}

// cmdHold makes the stand-in keep an answer to itself until release, and waits
// until it has one.
func cmdHold(ts *testscript.TestScript, _ bool, _ []string) {
	w := envOf(ts)
	w.release = make(chan struct{})
	before := len(w.standIn.Presentations())
	w.standIn.Script(procoretest.Blocked(w.release))
	// The command runs beside the script; what it asks the stand-in for is the sign that it is there.
	for end := time.Now().Add(waitLimit); len(w.standIn.Presentations()) == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("nothing is presented")
		}
	}
}

func cmdRelease(ts *testscript.TestScript, _ bool, _ []string) { close(envOf(ts).release) }

// cmdExits runs a command and checks its exit code: exits CODE COMMAND ARGS...
func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	checkExit(ts, ts.Exec(args[1], args[2:]...), want)
}

// cmdUntil repeats a command until it exits with a code: until CODE COMMAND ARGS...
func cmdUntil(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	for end := time.Now().Add(waitLimit); time.Now().Before(end); {
		if exitOf(ts, ts.Exec(args[1], args[2:]...)) == want {
			return
		}
	}
	ts.Fatalf("the exit code does not get to be %d", want)
}

// waitLimit is how long the scripts wait for something to happen.
const waitLimit = time.Minute

func checkExit(ts *testscript.TestScript, err error, want int) {
	if got := exitOf(ts, err); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func exitOf(ts *testscript.TestScript, err error) int {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	ts.Check(err)
	return 0
}

// cmdAddress reads from a file where `serve` is, and writes app credentials
// for its redirect URI to served.json.
func cmdAddress(ts *testscript.TestScript, _ bool, args []string) {
	w := envOf(ts)
	public := awaitMatch(ts, args[0], `http://localhost:\d+`)
	w.app = w.standIn.NewApp(public+"/callback/demo", procoretest.OutOfBand)
	w.writeCredentials(ts, "served.json", w.app)
	ts.Setenv("PUBLIC_URL", public)
	ts.Setenv("HOST", strings.TrimPrefix(public, "http://"))
}

func (w *scriptEnv) writeCredentials(ts *testscript.TestScript, file string, app procoretest.App) {
	value, err := json.Marshal(map[string]string{"client_id": app.ClientID, "client_secret": app.ClientSecret.Reveal(),
		"redirect_uri": app.RedirectURIs[0], "login_url": w.standIn.URL, "api_url": w.standIn.URL})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(file), value, 0o600))
}

// cmdAuthorize runs `tokenturn connection authorize`, consents at the address
// it prints, and pastes what is shown, in one of several forms: authorize CODE
// FORM ARGS... The output goes to authorize.out and authorize.err.
func cmdAuthorize(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	form := args[1]
	cmd := exec.Command(commandPath(ts), append([]string{"connection", "authorize"}, args[2:]...)...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "RECORD=" + ts.Getenv("RECORD"), "GORACE=" + ts.Getenv("GORACE")}
	stdin, err := cmd.StdinPipe()
	ts.Check(err)
	stdout, err := os.Create(ts.MkAbs("authorize.out"))
	ts.Check(err)
	defer stdout.Close()
	stderr, err := os.Create(ts.MkAbs("authorize.err"))
	ts.Check(err)
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	ts.Check(cmd.Start())
	address := awaitMatch(ts, "authorize.err", `http://\S+/oauth/authorize\?\S+`)
	_, err = io.WriteString(stdin, envOf(ts).pasted(ts, form, address)+"\n")
	ts.Check(err)
	checkExit(ts, cmd.Wait(), want)
}

// pasted is what a person copies after having consented at address.
func (w *scriptEnv) pasted(ts *testscript.TestScript, form, address string) string {
	shown, err := w.standIn.Consent(address, procoretest.DefaultUser().Login, true)
	ts.Check(err)
	code := token.NewSecret(shown[strings.LastIndexAny(shown, "=/")+1:])
	switch form {
	case "bare":
		return code.Reveal()
	case "parameter":
		return "  code=" + code.Reveal() + "  "
	case "query":
		return "'" + w.standIn.URL + "/oauth/authorize/native?code=" + code.Reveal() + "'"
	case "path":
		return `"` + w.standIn.URL + "/oauth/authorize/" + code.Reveal() + `"`
	case "denied":
		return w.standIn.URL + "/callback/demo?error=access_denied"
	case "wrong":
		return "not-the-code-that-was-shown"
	case "nothing":
		return "what is the code?"
	}
	ts.Fatalf("no form %s", form)
	return ""
}

func commandPath(ts *testscript.TestScript) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, "tokenturn"); isFile(path) {
			return path
		}
	}
	ts.Fatalf("no tokenturn in PATH")
	return ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

var link = regexp.MustCompile(`http://localhost:\d+/connect/[A-Z2-7]+`)

// cmdVisit opens the link in a file as a person does: presses the button, signs
// in, allows, and comes back. It wants the page that says so, or with ! that the
// link leads nowhere any more.
func cmdVisit(ts *testscript.TestScript, neg bool, args []string) {
	jar, err := cookiejar.New(nil)
	ts.Check(err)
	browser := http.Client{Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	address := link.FindString(ts.ReadFile(args[0]))
	begun, err := browser.Post(address, "application/x-www-form-urlencoded", nil)
	ts.Check(err)
	begun.Body.Close()
	if neg && begun.StatusCode == http.StatusGone {
		return
	}
	at, err := begun.Location()
	ts.Check(err)
	back, err := procoretest.NewHandler().Consent(at.String(), procoretest.DefaultUser().Login, true)
	ts.Check(err)
	envOf(ts).secrets = append(envOf(ts).secrets, token.NewSecret(at.Query().Get("state")))
	ended, err := browser.Get(back)
	ts.Check(err)
	ended.Body.Close()
	if location := ended.Header.Get("Location"); !strings.HasSuffix(location, "/connected") {
		ts.Fatalf("the callback answered %d and leads to %q", ended.StatusCode, location)
	}
}

// cmdPage opens the link in a file and wants a match on the page: page FILE PATTERN.
func cmdPage(ts *testscript.TestScript, _ bool, args []string) {
	answer, err := http.Get(link.FindString(ts.ReadFile(args[0])))
	ts.Check(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	ts.Check(err)
	if !regexp.MustCompile(args[1]).Match(text) {
		ts.Fatalf("no %q on the page:\n%s", args[1], text)
	}
}

// cmdShow wants a match on the page at an address: show URL PATTERN.
func cmdShow(ts *testscript.TestScript, _ bool, args []string) {
	answer, err := http.Get(args[0])
	ts.Check(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	ts.Check(err)
	if !regexp.MustCompile("(?s)" + args[1]).Match(text) {
		ts.Fatalf("no %q on the page:\n%s", args[1], text)
	}
}

// cmdConsole waits for the address of a console in a file and puts it into $CONSOLE.
func cmdConsole(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv("CONSOLE", awaitMatch(ts, args[0], `http://localhost:\d+`))
}

// cmdPost submits a form of the console, as a browser does: post URL STATUS PATTERN [FIELD=VALUE...].
func cmdPost(ts *testscript.TestScript, _ bool, args []string) {
	address, err := url.Parse(args[0])
	ts.Check(err)
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	page, err := browser.Get(address.Scheme + "://" + address.Host + "/")
	ts.Check(err)
	defer page.Body.Close()
	text, err := io.ReadAll(page.Body)
	ts.Check(err)
	found := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindSubmatch(text)
	if found == nil {
		ts.Fatalf("no form on the console:\n%s", text)
	}
	form := url.Values{"csrf": {string(found[1])}}
	for _, arg := range args[3:] {
		name, value, _ := strings.Cut(arg, "=")
		form.Set(name, value)
	}
	answer, err := browser.PostForm(args[0], form)
	ts.Check(err)
	defer answer.Body.Close()
	text, err = io.ReadAll(answer.Body)
	ts.Check(err)
	if fmt.Sprint(answer.StatusCode) != args[1] || !regexp.MustCompile("(?s)"+args[2]).Match(text) {
		_, text, _ := strings.Cut(string(text), "</style>")
		ts.Fatalf("%d, not %s with %q:\n%s", answer.StatusCode, args[1], args[2], text)
	}
}

// cmdAsk asks `serve` for an access token, as a program with the token in a file does:
// ask FILE ENV/NAME STATUS PATTERN.
func cmdAsk(ts *testscript.TestScript, _ bool, args []string) {
	request, err := http.NewRequest(http.MethodGet, ts.Getenv("PUBLIC_URL")+
		"/secretsmanager/get?secretId=tokenturn/connection/"+args[1], nil)
	ts.Check(err)
	request.Header.Set("X-Aws-Parameters-Secrets-Token", strings.TrimSpace(ts.ReadFile(args[0])))
	answer, err := http.DefaultClient.Do(request)
	ts.Check(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	ts.Check(err)
	if fmt.Sprint(answer.StatusCode) != args[2] || !regexp.MustCompile(args[3]).Match(text) {
		ts.Fatalf("%d, not %s with %q:\n%s", answer.StatusCode, args[2], args[3], text)
	}
}

// cmdID takes the first invitation's id from an answer in JSON into $ID.
func cmdID(ts *testscript.TestScript, _ bool, args []string) {
	var list []invitationAnswer
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &list))
	ts.Setenv("ID", list[0].ID)
}

// cmdPairs checks how many pairs are alive at the stand-in.
func cmdPairs(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := len(envOf(ts).standIn.Live()); got != want {
		ts.Fatalf("%d pairs are alive, want %d", got, want)
	}
}

// cmdAwait waits until a file has a match: await FILE PATTERN.
func cmdAwait(ts *testscript.TestScript, _ bool, args []string) { awaitMatch(ts, args[0], args[1]) }

func awaitMatch(ts *testscript.TestScript, file, pattern string) string {
	form := regexp.MustCompile(`(?m)` + pattern)
	// A process that runs beside the script writes the file, and says nothing else.
	for end := time.Now().Add(waitLimit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(ts.MkAbs(file)); err == nil && form.Match(text) {
			return string(form.Find(text))
		}
	}
	text, _ := os.ReadFile(ts.MkAbs(file))
	ts.Fatalf("%s does not get to say %q:\n%s", file, pattern, text)
	return ""
}

// cmdSQL changes the database of the embedded store as none of our programs does.
func cmdSQL(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", filepath.Join(ts.Getenv("HOME"), ".local", "share", "tokenturn", embedded.DatabaseName))
	ts.Check(err)
	_, err = db.Exec(args[0])
	ts.Check(errors.Join(err, db.Close()))
}

// browse is what the name xdg-open means in these tests: a browser in which a
// person allows access, and which then goes where it is sent.
func browse() {
	back, err := procoretest.NewHandler().Consent(os.Args[1], procoretest.DefaultUser().Login, true)
	if err == nil {
		var page *http.Response
		if page, err = http.Get(back); err == nil {
			err = page.Body.Close()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
