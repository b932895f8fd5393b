//go:build conformance

package conformance

import (
	"encoding/json"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"

	"github.com/tokenturn/tokenturn/pkg/config"
)

// TestStackConfiguresTheCommand runs the operator's command with the name of a stack and
// without any setting: it lists the same connections as with every setting exported.
func TestStackConfiguresTheCommand(t *testing.T) {
	t.Parallel()
	in := install(t, startCloud(t), startProvider(t, 0, time.Hour), "stack", nil)
	in.connect("peer/acme")
	in.describeStack("stack")
	want := in.operate("connection", "list")
	_, mark := in.tap.since(0)
	if got := in.byName("--stack", "stack", "--json", "connection", "list"); got != string(want) {
		t.Errorf("by the stack's name:\n%s\nwith all settings:\n%s", got, want)
	}
	calls, _ := in.tap.since(mark)
	if len(calls) == 0 || calls[0].Name != "DescribeStacks" || slices.ContainsFunc(calls[1:],
		func(c call) bool { return c.Name == "DescribeStacks" }) {
		t.Errorf("the calls are %v, want one DescribeStacks first", calls)
	}
	var shown struct {
		Installation string
		Settings     []struct{ Name, Value, Source string }
	}
	if err := json.Unmarshal([]byte(in.byName("--stack", "stack", "--json", "config", "show")), &shown); err != nil {
		t.Fatal(err)
	}
	for _, s := range shown.Settings {
		if value, set := in.env[s.Name]; set && (s.Value != value || s.Source != "stack") {
			t.Errorf("%s is %q from %s, want %q", s.Name, s.Value, s.Source, value)
		}
	}
	if out, code := in.tryByName("--stack", "nobody", "connection", "list"); code != 4 || !strings.Contains(out,
		"the stack nobody in us-east-1 does not exist") {
		t.Errorf("a stack that does not exist: exit %d, %s", code, out)
	}
	t.Logf("%d settings from %d outputs; %s", len(shown.Settings), len(in.stackOutputs("stack")), in.keepsSecrets())
}

// stackOutputs are the settings of this installation as outputs of a stack.
func (in *installation) stackOutputs(name string) map[string]any {
	outputs := map[string]any{"Stack": map[string]string{"Value": name},
		"Cadence": map[string]string{"Value": "1h"}, "RedeemRate": map[string]string{"Value": "2"}}
	for variable, value := range in.env {
		if config.InStack(variable) {
			outputs[config.Output(variable)] = map[string]string{"Value": value}
		}
	}
	return outputs
}

// describeStack lets moto answer as if CloudFormation had deployed this installation.
func (in *installation) describeStack(name string) {
	in.t.Helper()
	body, err := json.Marshal(map[string]any{"Outputs": in.stackOutputs(name), "Resources": map[string]any{
		"Nothing": map[string]string{"Type": "AWS::CloudFormation::WaitConditionHandle"}}})
	in.must(err)
	client := cloudformation.NewFromConfig(aws.Config{Region: "us-east-1", BaseEndpoint: &in.cloud.url,
		Credentials: credentials.NewStaticCredentialsProvider(keyOfTest, "test", "")})
	_, err = client.CreateStack(in.t.Context(), &cloudformation.CreateStackInput{StackName: &name,
		TemplateBody: aws.String(string(body))})
	in.must(err)
}

// byName runs the operator's command without any setting of tokenturn.
func (in *installation) byName(arguments ...string) string {
	in.t.Helper()
	out, code := in.tryByName(arguments...)
	if code != 0 {
		in.t.Fatalf("tokenturn %q exits with %d: %s", arguments, code, out)
	}
	return out
}

func (in *installation) tryByName(arguments ...string) (said string, code int) {
	in.t.Helper()
	cmd := exec.CommandContext(in.t.Context(), built(in.t, buildCommand), arguments...)
	cmd.Env = osVariables()
	variables := in.variables(keyOfOperator)
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if !strings.HasPrefix(name, "TOKENTURN_") {
			cmd.Env = append(cmd.Env, name+"="+variables[name])
		}
	}
	out, err := cmd.CombinedOutput()
	_, _ = in.logs.Write(out)
	if cmd.ProcessState == nil {
		in.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
