//go:build conformance

package conformance

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"testing"
	"time"
)

// TestDoctorInAWS examines an installation that is in order but for what moto
// cannot have, and then one setting after the other that is wrong.
func TestDoctorInAWS(t *testing.T) {
	t.Parallel()
	in := install(t, startCloud(t), startProvider(t, 0, time.Hour), "doctor", patient)
	in.connect("peer/acme")
	_, mark := in.tap.since(0)
	want := map[string]string{"settings": "ok", "keys": "ok", "schedule": "ok", "table": "warning", "permissions": "ok",
		"queue": "ok", "topic": "warning", "policies": "warning",
		"app": "ok", "clock": "ok", "connection": "ok", "secret": "ok", "versions": "ok", "lifetime": "ok", "token": "ok",
		"redirect": "problem"} // connect.example.test is nobody's
	if got := in.examined(nil); !maps.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	in.wroteNothing(mark, 15)

	for setting, wrong := range map[string]struct{ value, check string }{
		"TOKENTURN_TABLE":     {"elsewhere", "table"},
		"TOKENTURN_QUEUE_URL": {in.env["TOKENTURN_QUEUE_URL"] + "-elsewhere", "queue"},
		"TOKENTURN_TOPIC_ARN": {in.env["TOKENTURN_TOPIC_ARN"] + "-elsewhere", "topic"},
		"TOKENTURN_SEAL_KEY":  {"alias/elsewhere", "keys"},
		"TOKENTURN_STACK":     {"elsewhere", "secret"},
	} {
		if got := in.examined(map[string]string{setting: wrong.value}); got[wrong.check] != "problem" {
			t.Errorf("with a wrong %s: %v", setting, got)
		}
	}
	t.Logf("%d checks, five wrong settings found; %s", len(want), in.keepsSecrets())
}

// examined gives the gravest level of each check.
func (in *installation) examined(settings map[string]string) map[string]string {
	in.t.Helper()
	before := maps.Clone(in.env)
	maps.Copy(in.env, settings)
	defer func() { in.env = before }()
	out, _ := in.command("doctor").Output()
	_, _ = in.logs.Write(out)
	var a struct {
		Findings []struct{ Check, Level, Detail string } `json:"findings"`
	}
	if err := json.Unmarshal(out, &a); err != nil {
		in.t.Fatalf("%v: %s", err, out)
	}
	levels, gravity := map[string]string{}, map[string]int{"": 0, "ok": 1, "warning": 2, "later": 3, "consent": 4,
		"problem": 5}
	for _, f := range a.Findings {
		if gravity[f.Level] > gravity[levels[f.Check]] {
			levels[f.Check] = f.Level
		}
	}
	return levels
}

var writes = regexp.MustCompile(`^(Put|Update|Delete|Create|Restore|TransactWrite|Send)`)

// wroteNothing checks that since mark no write of the command took effect and no
// refresh token was presented. fewest is how many calls it must have made.
func (in *installation) wroteNothing(mark, fewest int) {
	in.t.Helper()
	calls, _ := in.tap.since(mark)
	for _, c := range calls {
		switch {
		case c.Peer == "aws" && writes.MatchString(c.Name) && c.Status < http.StatusBadRequest:
			in.t.Errorf("%s took effect", c.Name)
		case c.Name == "POST /oauth/token" && bytes.Contains(c.Body, []byte("refresh_token")):
			in.t.Error("a refresh token was presented")
		}
	}
	if len(calls) < fewest {
		in.t.Errorf("%d calls were made, too few to have looked at everything", len(calls))
	}
}
