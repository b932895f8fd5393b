//go:build conformance

package conformance

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// TestProtect attaches the policy to a secret that a run has made, again with
// other principals, and never over somebody else's; rotations go on.
func TestProtect(t *testing.T) {
	t.Parallel()
	in := install(t, startCloud(t), startProvider(t, 0, 10*time.Minute), "protect", patient)
	in.connect("peer/acme")
	const (
		writer = "arn:aws:iam::123456789012:role/rotate"
		me     = "arn:aws:iam::123456789012:user/moto" // whom moto takes everybody for
		spare  = "arn:aws:iam::123456789012:role/break-glass"
	)
	client, secret := in.secrets, aws.String(in.secretName("peer/acme"))
	attached := func() string {
		t.Helper()
		out, err := client.GetResourcePolicy(t.Context(), &secretsmanager.GetResourcePolicyInput{SecretId: secret})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(out.ResourcePolicy)
	}
	for _, recovery := range [][]string{{me}, {me, spare}} {
		arguments := []string{"connection", "protect", "--all", "--rotate-role", writer}
		for _, arn := range recovery {
			arguments = append(arguments, "--recovery", arn)
		}
		var answer []struct {
			Connection string `json:"connection"`
			Protected  bool   `json:"protected"`
		}
		if err := json.Unmarshal(in.operate(arguments...), &answer); err != nil || len(answer) != 1 || !answer[0].Protected ||
			answer[0].Connection != "peer/acme" {
			t.Fatalf("answer %+v, %v", answer, err)
		}
		printed := string(in.operate(append(arguments, "--print")...))
		if policy := attached(); policy != strings.TrimSpace(printed) || strings.Contains(policy,
			spare) != (len(recovery) == 2) {
			t.Errorf("attached is\n%s\nprinted was\n%s", policy, printed)
		}
	}
	in.force("peer/acme")
	in.works("peer/acme")

	theirs := `{"Version":"2012-10-17","Statement":[{"Sid":"Partner","Effect":"Deny","Principal":{"AWS":"123456789012"},"Action":"secretsmanager:DeleteSecret","Resource":"*"}]}`
	if _, err := client.PutResourcePolicy(t.Context(), &secretsmanager.PutResourcePolicyInput{SecretId: secret,
		ResourcePolicy: &theirs}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		why       string
		arguments []string
		code      int
	}{
		{"that tokenturn did not make", []string{"peer/acme", "--rotate-role", writer, "--recovery", me}, 1},
		{"name your role or user", []string{"peer/acme", "--rotate-role", writer, "--recovery", spare}, 1},
		{"there is no connection", []string{"peer/nobody", "--rotate-role", writer, "--recovery", me}, 4},
		{"needs a principal for recovery", []string{"peer/acme", "--rotate-role", writer}, 2},
	} {
		said, code := in.operateInVain(append([]string{"connection", "protect"}, c.arguments...)...)
		if code != c.code || !strings.Contains(said, c.why) {
			t.Errorf("exit code %d, want %d with %q: %s", code, c.code, c.why, said)
		}
	}
	if attached() != theirs {
		t.Error("somebody else's policy is lost")
	}
}
