package infra_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each of these mutations would bring strangers closer to tokens. The named rule must report it.
func TestRulesAboutTheCallbackBite(t *testing.T) {
	content, err := os.ReadFile(main)
	if err != nil {
		t.Fatal(err)
	}
	before, policy, _ := strings.Cut(string(content), "\n  CallbackPolicy:\n")
	const app = "!Sub arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret:${SecretPrefix}/app/*"
	secrets := strings.Replace(app, "/app/", "/connection/", 1)
	for _, c := range []struct{ name, rule, old, new string }{
		{"another resource", "callback-sees-no-token", "Resource: " + app, "Resource: " + secrets},
		{"a resource more", "callback-sees-no-token", "Resource: " + app, "Resource:\n              - " + secrets +
			"\n              - " + app},
		{"an action more", "callback-sees-no-token", "Action: secretsmanager:GetSecretValue",
			"Action: [secretsmanager:GetSecretValue, secretsmanager:PutSecretValue]"},
		{"opening what is sealed", "callback-opens-nothing", "Action: kms:GenerateDataKey\n            Resource: " +
			"!GetAtt SealKey.Arn", "Action: [kms:GenerateDataKey, kms:Decrypt]\n            Resource: !GetAtt SealKey.Arn"},
		{"the key for every secret", "callback-vault-key", "kms:EncryptionContext:SecretARN: " + app,
			"kms:EncryptionContext:SecretARN: " + secrets},
		{"the key without a store", "callback-vault-key", "StringEquals: {kms:ViaService: " +
			"!Sub \"dynamodb.${AWS::Region}.${AWS::URLSuffix}\"}", "Bool: {aws:SecureTransport: true}"},
		{"an end of a consent that no statement allows as a whole", "callback-concludes", `["INVITE#*", "STATE#*"]`,
			`"STATE#*"`},
		{"every item", "leading-keys",
			"Condition:\n              ForAllValues:StringLike: {dynamodb:LeadingKeys: \"CONN#*\"}", "Condition: {}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spoilt := strings.Replace(policy, c.old, c.new, 1)
			if spoilt == policy {
				t.Fatalf("the policy does not contain %s", c.old)
			}
			broken := brokenRules(t, before+"\n  CallbackPolicy:\n"+spoilt)
			if !slices.Contains(broken, c.rule) {
				t.Errorf("only %v are broken", broken)
			}
		})
	}
}

// brokenRules are those that a template breaks.
func brokenRules(t *testing.T, content string) (broken []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "template.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	tmpl := load(t, path)
	for _, rule := range rules {
		if len(rule.broken(tmpl)) > 0 {
			broken = append(broken, rule.id)
		}
	}
	return broken
}

// callbackVaultKey: the key of the stores is the same for the table, the topic, app credentials and
// connections' secrets, so the callback function may use it for all but the last, and make data keys for the topic
// only.
func callbackVaultKey(t template) (broken []string) {
	for _, s := range t.policy("CallbackPolicy") {
		if !strings.Contains(s.resourceText(), "VaultKey") {
			continue
		}
		condition := object(s.body["Condition"])
		via := fmt.Sprint(object(condition["StringEquals"])["kms:ViaService"])
		secret := fmt.Sprint(object(condition["StringLike"])["kms:EncryptionContext:SecretARN"])
		table := via == "map[Fn::Sub:dynamodb.${AWS::Region}.${AWS::URLSuffix}]"
		apps := via == "map[Fn::Sub:secretsmanager.${AWS::Region}.${AWS::URLSuffix}]" && strings.HasSuffix(secret,
			":secret:${SecretPrefix}/app/*]")
		topic := via == "map[Fn::Sub:sns.${AWS::Region}.${AWS::URLSuffix}]" &&
			fmt.Sprint(object(condition["StringEquals"])["kms:EncryptionContext:aws:sns:topicArn"]) == "map[Ref:Notices]"
		if !topic && !slices.Equal(s.actions, []string{"kms:Decrypt"}) || !table && !apps && !topic {
			broken = append(broken, fmt.Sprint(s.where, " allows ", s.actions, " via ", via, " for ", secret))
		}
	}
	return broken
}

// callbackConcludes: the end of a consent updates its state and its invitation in one transaction.
// Whether IAM is given the keys of a transaction one by one or all together is not documented, so both must pass.
func callbackConcludes(t template) []string {
	for _, s := range t.policy("CallbackPolicy") {
		keys := object(object(s.body["Condition"])["ForAllValues:StringLike"])["dynamodb:LeadingKeys"]
		if slices.Contains(s.actions, "dynamodb:UpdateItem") && slices.Equal(texts(list(keys)),
			[]string{"INVITE#*", "STATE#*"}) {
			return nil
		}
	}
	return []string{"CallbackPolicy has no statement that allows to update an invitation and a state together"}
}

// callbackHasOnePolicy: the other rules check one policy, so there must be no other.
func callbackHasOnePolicy(t template) (broken []string) {
	if f := t.resource("CallbackFunction"); f.at("Policies") != nil || f.at("Role") == nil {
		broken = append(broken, "CallbackFunction has rights that SAM makes up")
	}
	role := t.resource("CallbackRole")
	for _, list := range []string{"Policies", "ManagedPolicyArns"} {
		if role.at(list) != nil {
			broken = append(broken, "CallbackRole has "+list)
		}
	}
	for _, kind := range []string{"AWS::IAM::RolePolicy", "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"} {
		for name, r := range t.ofType(kind) {
			if name != "CallbackPolicy" && strings.Contains(fmt.Sprint(r.at("RoleName"), r.at("Roles")), "CallbackRole") {
				broken = append(broken, name+" is a second policy of CallbackRole")
			}
		}
	}
	return broken
}
