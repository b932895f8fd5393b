//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/ensure"
	"github.com/tokenturn/tokenturn/pkg/tokensource/tokensourcetest"
)

// oneShot are programs that make requests, one after the other, and print the status and
// the body of each on a line. The second has a body, the third, where there is one, a stream, and
// the last one no path, but what would make another host of the API's.
func oneShot(t *testing.T) map[string][]string {
	programs := map[string][]string{
		"Python": {tools(t).python, "-c", `
import io, sys
sys.path.insert(0, sys.argv[1])
from procore import Connection
acme = Connection("peer/acme")
for method, body in ("GET", None), ("POST", b"body"), ("POST", io.BytesIO(b"stream")):
    answer = acme.request(method, "/rest/v1.0/projects?page=1", body=body)
    print(answer.status, answer.data.decode(), flush=True)
    sys.stdin.readline()
try:
    acme.request("GET", ".example.com/rest/v1.0/me")
except ValueError as reason:
    print("refused" if "slash" in str(reason) else reason)
`, examples(t, "python")},
		"bash": {"bash", "-euc", `
source "$1/procore.sh"
PROCORE_CONNECTION=peer/acme
file=$(mktemp)
request() { procore "$@" >"$file" && echo "200 $(<"$file")" || echo "failed $(<"$file")"; }
request "/rest/v1.0/projects?page=1"
read -r
request "/rest/v1.0/projects?page=1" --data body
rm "$file"
procore .example.com/rest/v1.0/me || (($? != 2)) || echo refused
`, "bash", examples(t, "bash")},
	}
	path := filepath.Join(filepath.Dir(compiled(t)), "oneshot.mjs")
	err := os.WriteFile(path, []byte(`
import { createInterface } from "node:readline/promises";
import { Connection } from "./procore.mjs";
const acme = new Connection("peer/acme");
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const stream = { method: "POST", body: new Blob(["stream"]).stream(), duplex: "half" };
for (const init of [{}, { method: "POST", body: "body" }, stream]) {
  const answer = await acme.fetch("/rest/v1.0/projects?page=1", init);
  console.log(answer.status, await answer.text());
  await input.next();
}
await acme.fetch(".example.com/rest/v1.0/me").catch((reason) => console.log(reason.message.includes("slash") ? "refused" : reason));
process.exit(0);
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	programs["TypeScript"] = []string{"node", path}
	return programs
}

// secret store is a secret in moto and an API that takes its current token only.
type secrets struct {
	*tokensourcetest.Secret
	t      *testing.T
	client *secretsmanager.Client
}

func (v secrets) publish() {
	v.t.Helper()
	value, err := v.Document().Encode()
	if err != nil {
		v.t.Error(err)
	}
	v.put(value.Reveal())
}

func (v secrets) put(value string) {
	v.t.Helper()
	_, err := v.client.PutSecretValue(context.Background(), &secretsmanager.PutSecretValueInput{
		SecretId: aws.String("tokenturn/connection/peer/acme"), SecretString: &value})
	if err != nil {
		v.t.Error(err)
	}
}

// silentOnce is a proxy to Secrets Manager that leaves one request unanswered when it is switched on.
type silentOnce struct {
	*httputil.ReverseProxy
	now atomic.Bool
}

func (s *silentOnce) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.now.CompareAndSwap(true, false) {
		_, _ = io.Copy(io.Discard, r.Body) // until then net/http does not see that the client is gone
		<-r.Context().Done()
		return
	}
	s.ReverseProxy.ServeHTTP(w, r)
}

// TestExamplesReadAgain has each example meet a token that a rotation killed, with the new one
// published only after the 401, and with a secret that is not readable and a Secrets Manager
// that does not answer in between.
func TestExamplesReadAgain(t *testing.T) {
	t.Parallel()
	for language, command := range oneShot(t) {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			in := &installation{t: t, cloud: startCloud(t), env: map[string]string{}}
			v := secrets{tokensourcetest.New("peer/acme"), t, in.secretsOf("Test")}
			var mu sync.Mutex
			var onRefusal func()
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer "+v.Document().AccessToken.Reveal() {
					w.WriteHeader(http.StatusUnauthorized)
					mu.Lock()
					defer mu.Unlock()
					if onRefusal != nil {
						onRefusal()
						onRefusal = nil
					}
					return
				}
				var body bytes.Buffer
				_, _ = body.ReadFrom(r.Body)
				_, _ = w.Write([]byte(r.Method + " " + r.URL.String() + " " + r.Header.Get("Procore-Company-Id") + " " +
					body.String()))
			}))
			defer api.Close()
			v.Edit(func(d *token.Document) { d.APIURL, d.CompanyID, d.Generation = api.URL, "7", 3 })
			value, err := v.Document().Encode()
			in.must(err)
			_, err = v.client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{
				Name: aws.String("tokenturn/connection/peer/acme"), SecretString: aws.String(value.Reveal())})
			in.must(err)

			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, command[0], command[1:]...)
			moto, err := url.Parse(in.cloud.url)
			in.must(err)
			way := &silentOnce{ReverseProxy: httputil.NewSingleHostReverseProxy(moto)}
			manager := httptest.NewServer(way)
			defer manager.Close()
			cmd.Env = append(in.readerEnv(language), "AWS_ENDPOINT_URL="+manager.URL)
			var said lockedBuffer
			cmd.Stderr = &said
			stdin, err := cmd.StdinPipe()
			in.must(err)
			stdout, err := cmd.StdoutPipe()
			in.must(err)
			in.must(cmd.Start())
			lines := make(chan string)
			go func() {
				defer close(lines)
				for line := range readLines(stdout) {
					lines <- line
				}
			}()
			if got := <-lines; strings.TrimSpace(got) != "200 GET /rest/v1.0/projects?page=1 7" {
				t.Fatalf("the first request: %q\n%s", got, said.String())
			}
			v.Rotate()
			mu.Lock()
			onRefusal = func() {
				v.put("no document")
				way.now.Store(true)
				time.AfterFunc(1500*time.Millisecond, v.publish) // real programs, real time
			}
			mu.Unlock()
			_, err = stdin.Write([]byte("\n"))
			in.must(err)
			if got := <-lines; got != "200 POST /rest/v1.0/projects?page=1 7 body" {
				t.Errorf("the request after the rotation: %q\n%s", got, said.String())
			}
			v.Rotate()
			v.publish()
			_ = stdin.Close()
			if language != "bash" { // where no stream is made twice
				if got := <-lines; strings.TrimSpace(got) != "401" {
					t.Errorf("a stream, which cannot be sent again: %q\n%s", got, said.String())
				}
			}
			if got := <-lines; got != "refused" {
				t.Errorf("another host: %q\n%s", got, said.String())
			}
			for range lines {
			}
			in.must(cmd.Wait())
			if strings.Contains(said.String(), "access-") {
				t.Error("a token was written to stderr")
			}
		})
	}
}

// invoker is Lambda's Invoke on the compiled rotate function.
type invoker struct{ in *installation }

func (i invoker) Invoke(_ context.Context, call *lambda.InvokeInput, _ ...func(*lambda.Options)) (*lambda.InvokeOutput,
	error) {
	answer, err := i.in.invoke(string(call.Payload))
	if err != nil {
		return &lambda.InvokeOutput{FunctionError: aws.String("Unhandled"), Payload: answer}, nil
	}
	return &lambda.InvokeOutput{Payload: answer}, nil
}

// TestEnsureAsksTheRotateFunction reads tokens of half a minute for a while without any
// schedule, then learns what a secret does not show: that a person must consent.
func TestEnsureAsksTheRotateFunction(t *testing.T) {
	t.Parallel()
	const life, min = 30 * time.Second, 10 * time.Second
	in := install(t, startCloud(t), startProvider(t, 0, life), "ensure", map[string]string{"TOKENTURN_REDEEM_RATE": "50"})
	in.connect("peer/acme")
	source := func(connection string) *tokensource.Source {
		s, err := tokensource.New(in.secretsOf("Ensure"), connection, tokensource.WithPrefix("ensure"),
			tokensource.WithEnsure(ensure.Function(invoker{in}, "rotate"), min))
		in.must(err)
		return s
	}
	acme := source("peer/acme")
	client := acme.Client(t.Context())
	generations := map[int64]bool{}
	for began := time.Now(); len(generations) < 3; time.Sleep(200 * time.Millisecond) {
		document, err := acme.Document(t.Context())
		in.must(err)
		generations[document.Generation] = true
		if code, err := status(client.Get(document.APIURL + "/rest/v1.0/me")); code != http.StatusOK || err != nil {
			t.Fatalf("generation %d: %d %v", document.Generation, code, err)
		}
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("only generations %v; the last answers:\n%s", generations, in.answers.tail(2000))
		}
	}
	if n := strings.Count(in.answers.String(), `"outcome":"rotated"`); n != 2 {
		t.Errorf("%d rotations for 3 generations", n)
	}

	in.invite("peer/waiting")
	for connection, want := range map[string]error{"peer/waiting": tokensource.ErrNeedsConsent,
		"peer/nobody": tokensource.ErrNotFound} {
		if _, err := source(connection).Token(); !errors.Is(err, want) {
			t.Errorf("%s: %v", connection, err)
		}
	}
	in.provider.withdraw()
	for began := time.Now(); ; time.Sleep(time.Second) {
		_, err := acme.Token()
		if errors.Is(err, tokensource.ErrNeedsConsent) && errors.Is(err, tokensource.ErrExpired) {
			break
		}
		if time.Since(began) > 2*life {
			t.Fatalf("%v after the consent was withdrawn: %v; the last answers:\n%s", 2*life, err, in.answers.tail(2000))
		}
	}
	in.keepsSecrets()
}

// TestExampleFunction runs the compiled example against moto and the stand-in, between and during rotations.
func TestExampleFunction(t *testing.T) {
	t.Parallel()
	in := installStandIn(t, "example")
	in.env["TOKENTURN_CONNECTION"] = readConnections[0]
	reader := in.function(func() (string, error) { return build("functions/example-reader", "bootstrap") }, "reader",
		keyOf("Function"), time.Minute)
	for range 3 {
		answer, err := reader.Invoke(t.Context(), []byte(`{"company_id":"4264807"}`))
		var projects []struct{ Name string }
		if err != nil || json.Unmarshal(answer, &projects) != nil || len(projects) != 5 || projects[0].Name != "Project 1" {
			t.Errorf("answers %s %v", answer, err)
		}
		in.force(readConnections[0])
	}
	if reader.ColdStarts() != 1 {
		t.Errorf("%d cold starts", reader.ColdStarts())
	}
}

// TestTokenForOneCommand has the operator's command hand the token in AWS to a
// script, before and after a rotation.
func TestTokenForOneCommand(t *testing.T) {
	t.Parallel()
	in := installStandIn(t, "script")
	acme := readConnections[0]
	script := []string{"--", "sh", "-c", `curl --silent --config - "$PROCORE_API_URL/rest/v1.0/me" <<.
header = "Authorization: Bearer $PROCORE_ACCESS_TOKEN"
.`}
	for _, options := range [][]string{nil, {"--min-ttl", "10s"}} {
		var me struct{ Login string }
		out := in.operate(slices.Concat([]string{"token", "exec", acme}, options, script)...)
		if err := json.Unmarshal(out, &me); err != nil || me.Login != procoretest.DefaultUser().Login {
			t.Errorf("with %v the script printed %s", options, out)
		}
		in.force(acme)
	}
	var printed struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(in.operate("token", "print", acme), &printed); err != nil ||
		printed.AccessToken != in.read(acme).AccessToken {
		t.Error("token print does not print what readers read")
	}
	in.keepsLogsClean()
}
