//go:build conformance

package conformance

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/infra/test/lambdaruntime"
)

// touching are calls that change something at a peer.
var touching = regexp.MustCompile(`^(Put|Update|Create|Delete|Transact|BatchWrite|Send|Publish|POST /oauth/)`)

// touched returns the calls among those since mark that change something.
func (in *installation) touched(mark int) (names []string) {
	calls, _ := in.tap.since(mark)
	for _, c := range calls {
		if touching.MatchString(c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

// TestNothingDue: a sweep that finds nothing to do costs one query.
func TestNothingDue(t *testing.T) {
	t.Parallel()
	in := install(t, startCloud(t), startProvider(t, 0, 10*time.Minute), "idle", patient)
	in.connect("peer/acme")
	in.sweep() // takes the cold start
	_, mark := in.cloud.log(0)
	_, tapMark := in.tap.since(0)
	if r := in.sweep(); r.Due != 0 || len(r.Connections) != 0 {
		t.Errorf("a sweep with nothing due answers %+v", r)
	}
	calls, _ := in.cloud.log(mark)
	if len(calls) != 1 || calls[0].Op != "Query" || calls[0].Service != "dynamodb" || calls[0].Who != keyOfRotate {
		t.Errorf("a sweep with nothing due makes the calls %+v, want one query of the table", calls)
	}
	if all, _ := in.tap.since(tapMark); len(all) != len(calls) {
		t.Errorf("it also called the provider: %d calls in all", len(all))
	}
	t.Logf("a sweep with nothing due makes %d call; %s", len(calls), in.keepsSecrets())
}

// TestBadEvents: what the rotate function does not accept is a function error
// that says what it accepts, and nothing is touched.
func TestBadEvents(t *testing.T) {
	t.Parallel()
	in := install(t, startCloud(t), startProvider(t, 0, 10*time.Minute), "events", patient)
	in.connect("peer/acme")
	before := in.read("peer/acme")
	_, mark := in.tap.since(0)
	bad := map[string]string{
		"no object":          `[]`,
		"nothing":            `{}`,
		"unknown op":         `{"op":"explode","connection":"peer/acme"}`,
		"no connection":      `{"op":"rotate"}`,
		"bad connection":     `{"op":"rotate","connection":"PEER/../acme"}`,
		"unknown field":      `{"op":"ensure","connection":"peer/acme","min_ttl":60}`,
		"ensure without ttl": `{"op":"ensure","connection":"peer/acme"}`,
		"other event":        `{"source":"aws.s3","detail-type":"Object Created","detail":{}}`,
		"other queue":        `{"Records":[{"eventSource":"aws:kinesis","body":"{}"}]}`,
	}
	for name, event := range bad {
		answer, err := in.invoke(event)
		if lambdaruntime.FailureOf(err) != lambdaruntime.Reported || !strings.Contains(err.Error(), "accept") {
			t.Errorf("%s: got %s and %v, want a function error that says what is accepted", name, answer, err)
		}
	}
	if got := in.force("peer/nobody").outcome("peer/nobody"); got != "not_found" {
		t.Errorf("an unknown connection answers %q, want not_found", got)
	}
	if got := in.force("elsewhere/acme").outcome("elsewhere/acme"); got != "not_found" {
		t.Errorf("a connection of an unknown environment answers %q, want not_found", got)
	}
	if touched := in.touched(mark); len(touched) != 0 {
		t.Errorf("bad events caused %v", touched)
	}
	in.batchOfGoodAndBad()
	if after := in.works("peer/acme"); after.Generation != before.Generation {
		t.Errorf("bad events brought the connection from generation %d to %d", before.Generation, after.Generation)
	}
	t.Logf("%d bad events and 2 unknown connections: one clear answer each, nothing touched; %s", len(bad),
		in.keepsSecrets())
}

// batchOfGoodAndBad: of a batch only what could not be processed comes back.
func (in *installation) batchOfGoodAndBad() {
	in.t.Helper()
	answer, err := in.invoke(`{"Records":[` +
		`{"messageId":"good","eventSource":"aws:sqs","body":"{\"op\":\"publish\",\"connection\":\"peer/acme\"}"},` +
		`{"messageId":"bad","eventSource":"aws:sqs","body":"not json"},` +
		`{"messageId":"gone","eventSource":"aws:sqs","body":"{\"op\":\"publish\",\"connection\":\"peer/nobody\"}"}]}`)
	in.must(err)
	if want := `{"batchItemFailures":[{"itemIdentifier":"bad"}]}`; string(answer) != want {
		in.t.Errorf("the batch answers %s, want %s", answer, want)
	}
}

// TestMissingSettings: all that is wrong is reported at once, by name.
func TestMissingSettings(t *testing.T) {
	t.Parallel()
	for name, program := range map[string]func() (string, error){"rotate": buildRotate, "callback": buildCallback} {
		var log lockedBuffer
		f := lambdaruntime.New(lambdaruntime.Config{Name: name, Bootstrap: built(t, program), Timeout: 10 * time.Second,
			Log: &log,
			Env: map[string]string{"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "test",
				"AWS_ENDPOINT_URL":  "http://127.0.0.1:9",
				"TOKENTURN_CADENCE": "sometimes"}})
		_, err := f.Invoke(t.Context(), []byte(scheduled))
		f.Kill()
		if err == nil {
			t.Errorf("%s without its settings answers an event", name)
			continue
		}
		for _, want := range []string{"TOKENTURN_TABLE", "TOKENTURN_SEAL_KEY", "TOKENTURN_CADENCE"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s without its settings says %v, want it to name %s", name, err, want)
			}
		}
	}
}

// TestCorruptSecrets: what somebody wrote over is reported or put right, and no
// refresh token is spent on it.
func TestCorruptSecrets(t *testing.T) {
	t.Parallel()
	in := install(t, startCloud(t), startProvider(t, 0, 10*time.Minute), "corrupt", quick)
	in.connect("peer/acme")
	app := in.env["TOKENTURN_SECRET_PREFIX"] + "/app/" + environment
	whole, err := in.secrets.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &app})
	in.must(err)

	// A connection each: one that met a fault waits for a while.
	credentials := map[string]string{"peer/not-json": "hunter2-hunter2-hunter2", "peer/no-secret": `{"client_id":"x"}`}
	for connection := range credentials {
		in.connect(connection)
	}
	for connection, value := range credentials {
		in.overwrite(app, value)
		_, mark := in.tap.since(0)
		r := in.force(connection)
		if got := r.outcome(connection); got != "config_error" || r.Connections[0].Detail == "" {
			t.Errorf("with app credentials %s: %+v, want a config_error that says what to do", value, r)
		}
		if strings.Contains(r.Connections[0].Detail, "hunter2") {
			t.Errorf("the answer repeats the secret: %s", r.Connections[0].Detail)
		}
		for _, call := range in.touched(mark) {
			if strings.HasPrefix(call, "POST ") {
				t.Errorf("with app credentials %s: %s was sent", value, call)
			}
		}
	}
	in.overwrite(app, *whole.SecretString)

	in.overwrite(in.secretName("peer/acme"), `{"format":1,"access_token":"somebody else's"}`)
	if got := in.force("peer/acme").outcome("peer/acme"); got != "rotated" {
		t.Errorf("a connection's secret that was written over: %q, want the rotation to put it right and go on", got)
	}
	for connection := range credentials {
		in.works(connection)
	}
	in.works("peer/acme")
	in.presentedOnce(4, 1)
	t.Logf("2 kinds of broken app credentials, 1 secret written over: reported or put right, no refresh token spent; %s",
		in.keepsSecrets())
}

// overwrite puts a value into a secret, as somebody in the console could.
func (in *installation) overwrite(secret, value string) {
	in.t.Helper()
	_, err := in.secrets.PutSecretValue(in.t.Context(), &secretsmanager.PutSecretValueInput{SecretId: &secret,
		SecretString: aws.String(value)})
	in.must(err)
}

// TestWithdrawnConsent: a refused refresh token ends in needs_consent, said
// once and clearly, and a new consent heals the connection.
func TestWithdrawnConsent(t *testing.T) {
	t.Parallel()
	p := startProvider(t, 0, 10*time.Minute)
	in := install(t, startCloud(t), p, "withdrawn", patient)
	in.connect("peer/acme")
	p.withdraw()
	if got := in.force("peer/acme").outcome("peer/acme"); got != "needs_consent" {
		t.Fatalf("after the user withdrew the consent a rotation answers %q, want needs_consent", got)
	}
	notices := 0
	calls, _ := in.tap.since(0)
	for _, c := range calls {
		if c.Name == "Publish" {
			notices++
		}
	}
	if notices != 1 {
		t.Errorf("%d notices, want one", notices)
	}
	in.connect("peer/acme")
	if d := in.works("peer/acme"); d.Epoch != 2 || d.Generation != 0 {
		t.Errorf("after another consent (%d, %d) is published, want (2, 0)", d.Epoch, d.Generation)
	}
	if got := in.force("peer/acme").outcome("peer/acme"); got != "rotated" {
		t.Errorf("after another consent a rotation answers %q", got)
	}
	in.works("peer/acme")
	p.withdraw()
	in.noticeOfTheCommand("peer/acme")
	t.Logf("withdrawn consent: needs_consent, %d notice, healed by a new consent; %s", notices, in.keepsSecrets())
}

// noticeOfTheCommand: the operator's command sends its notices to the topic as well.
func (in *installation) noticeOfTheCommand(connection string) {
	in.t.Helper()
	_, mark := in.tap.since(0)
	if said, code := in.operateInVain("connection", "rotate", connection); code != 3 {
		in.t.Errorf("a rotation by the command ends with %d, want 3 for a consent: %s", code, said)
	}
	calls, _ := in.tap.since(mark)
	if !slices.ContainsFunc(calls, func(c call) bool {
		return c.Name == "Publish" && c.Who == keyOfOperator &&
			c.Status == http.StatusOK
	}) {
		in.t.Error("the command sent nothing to the topic")
	}
}
