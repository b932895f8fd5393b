package infra_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

// The example's template keeps the rules of the stack's template, and its policy is as
// narrow as documented.
func TestExampleReader(t *testing.T) {
	example := load(t, "../examples/reader.yaml")
	for _, rule := range []func(template) []string{noWildcards, namedResources, logs} {
		for _, broken := range rule(example) {
			t.Error(broken)
		}
	}

	// of a secret that is not there yet
	const name = "arn:aws:secretsmanager:us-east-1:111122223333:secret:tokenturn/connection/sandbox/acme"
	const arn = name + "-??????"
	const key = "arn:aws:kms:us-east-1:111122223333:key/1234"
	values := map[string]any{"AWS::Region": "us-east-1", "AWS::AccountId": "111122223333", "AWS::Partition": "aws",
		"AWS::URLSuffix": "amazonaws.com", "Connection": "sandbox/acme", "SecretPrefix": "tokenturn", "VaultKey": key}
	policy := example.policy("ReaderPolicy")
	for i, want := range []struct {
		action    string
		resources []any
		condition map[string]map[string]string
	}{
		{"secretsmanager:GetSecretValue", []any{arn, name},
			map[string]map[string]string{"StringEquals": {"secretsmanager:VersionStage": "AWSCURRENT"}}},
		{"kms:Decrypt", []any{key}, map[string]map[string]string{
			"StringEquals": {"kms:ViaService": "secretsmanager.us-east-1.amazonaws.com"},
			"StringLike":   {"kms:EncryptionContext:SecretARN": arn}}},
	} {
		if len(policy) != 2 || !slices.Equal(policy[i].actions, []string{want.action}) ||
			!reflect.DeepEqual(example.resolve(policy[i].resources, values), want.resources) {
			t.Fatalf("%s is not the %d. statement of two", want.action, i+1)
		}
		for operator, conditions := range want.condition {
			for key, value := range conditions {
				if got := example.resolve(object(object(policy[i].body["Condition"])[operator])[key], values); got != value {
					t.Errorf("%s: %s of %s is %v", want.action, operator, key, got)
				}
			}
		}
	}

	reader := example.resource("ReaderFunction")
	for _, broken := range slices.Concat(reader.differs("CodeUri", "../../build/example-reader/"),
		reader.differs("Runtime", "provided.al2023"), reader.differs("Architectures", []any{ref("Architecture")}),
		reader.differs("Handler", "bootstrap")) {
		t.Error(broken)
	}
	if _, err := os.Stat(filepath.Join("..", "..", "functions", "example-reader", "main.go")); err != nil {
		t.Error(err)
	}
}
