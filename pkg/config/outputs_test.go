package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/config"
)

func TestOutputsAreNamedAfterTheirSettings(t *testing.T) {
	for variable, want := range map[string]string{"TOKENTURN_TABLE": "Table", "TOKENTURN_SEAL_KEY": "SealKey",
		"TOKENTURN_PUBLIC_URL": "PublicUrl", "TOKENTURN_TOPIC_ARN": "TopicArn"} {
		if got := config.Output(variable); got != want {
			t.Errorf("%s: %s, want %s", variable, got, want)
		}
	}
}

func TestMayBeInStack(t *testing.T) {
	for variable, want := range map[string]bool{"TOKENTURN_TABLE": true, "TOKENTURN_ORGANIZATION": true,
		"TOKENTURN_LEASE": false, "TOKENTURN_PROXY": false, "TOKENTURN_NOTHING": false} {
		if got := config.MayBeInStack(variable); got != want {
			t.Errorf("%s: %t", variable, got)
		}
	}
}

// A stack's outputs are enough for the operator's command. What a stack lacks is named.
func TestFromOutputs(t *testing.T) {
	outputs := map[string]string{"Table": "tokens", "SealKey": "alias/seal", "VaultKey": "alias/vault", "Stack": "blue",
		"SecretPrefix": "acme", "PublicUrl": "https://connect.example.com", "QueueUrl": "https://sqs.example.com/1/q",
		"TopicArn": "arn:aws:sns:eu-west-1:111122223333:notices", "Cadence": "15m", "RedeemRate": "3", "LogLevel": "warn",
		"RotateFunction": "rotate", "Lease": "1s"}
	variables, missing := config.FromOutputs(outputs)
	if len(missing) > 0 || variables["TOKENTURN_STACK"] != "blue" || len(variables) != 11 {
		t.Errorf("got %v, missing %q", variables, missing)
	}
	var environ []string
	for name, value := range variables {
		environ = append(environ, name+"="+value)
	}
	if s, err := config.Read(config.Operator, environ); err != nil || s.Table != "tokens" || s.RedeemRate != 3 {
		t.Errorf("got %+v, %v", s, err)
	}

	outputs["Organization"] = "Acme Builders"
	delete(outputs, "Cadence")
	outputs["SealKey"] = ""
	variables, missing = config.FromOutputs(outputs)
	if variables["TOKENTURN_ORGANIZATION"] != "Acme Builders" || !slices.Equal(missing, []string{"SealKey", "Cadence"}) {
		t.Errorf("got %v, missing %q", variables, missing)
	}
}

// Describe shows no secret: neither a proxy's credentials nor a value that is not valid.
func TestDescribe(t *testing.T) {
	got := map[string]config.Setting{}
	for _, s := range config.Describe(config.Operator, least("TOKENTURN_PROXY=http://user:canary@proxy.example.com:3128",
		"TOKENTURN_CADENCE=canary")) {
		got[s.Name] = s
	}
	for _, want := range []config.Setting{
		{Name: "TOKENTURN_TABLE", Value: "tokens", Set: true, Valid: true},
		{Name: "TOKENTURN_STACK", Value: "tokens", Valid: true},
		{Name: "TOKENTURN_LEASE", Value: "60s", Valid: true},
		{Name: "TOKENTURN_TOPIC_ARN", Valid: true},
		{Name: "TOKENTURN_CADENCE", Set: true},
		{Name: "TOKENTURN_PROXY", Value: "http://[redacted]@proxy.example.com:3128", Set: true, Valid: true},
	} {
		if got[want.Name] != want {
			t.Errorf("got %+v, want %+v", got[want.Name], want)
		}
	}
	if n := len(got); n != len(config.Names()) {
		t.Errorf("%d settings are described", n)
	}
	var local []string
	for _, s := range config.Describe(config.Local, nil) {
		local = append(local, strings.TrimPrefix(s.Name, "TOKENTURN_"))
	}
	want := []string{"CONCURRENCY", "LEASE", "PROXY", "QUIET", "REDEEM_RATE", "REDEEM_TIMEOUT", "RETURN_ORIGINS"}
	if slices.Sort(local); !slices.Equal(local, want) {
		t.Errorf("on one machine: %q", local)
	}
}
