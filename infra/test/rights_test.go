package infra_test

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// rights of everybody but the callback function, which callback_test.go is about.

const (
	secretNames     = "arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret:${SecretPrefix}/"
	appSecrets      = secretNames + "app/*"
	connectionNames = secretNames + "connection/*"
)

// secretsInScope: every role reaches only secrets of this installation, readers only those of connections, and only
// operators may delete or share one, and only a connection's.
func secretsInScope(t template) (broken []string) {
	own := []string{appSecrets, connectionNames}
	operators := []string{"secretsmanager:DeleteSecret", "secretsmanager:GetResourcePolicy",
		"secretsmanager:PutResourcePolicy", "secretsmanager:RestoreSecret"}
	for _, policy := range []string{"RotatePolicy", "CallbackPolicy", "ReaderPolicy", "OperatorPolicy"} {
		for _, s := range t.policy(policy) {
			for _, action := range s.actions {
				if !strings.HasPrefix(action, "secretsmanager:") {
					continue
				}
				within := own
				if slices.Contains(operators, action) || policy == "ReaderPolicy" {
					within = own[1:]
				}
				if outside(s.resourceTexts(), within) {
					broken = append(broken, s.where+" allows "+action+" on "+s.resourceText())
				}
				reads := slices.Contains([]string{"secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"}, action)
				if policy == "ReaderPolicy" && !reads || policy != "OperatorPolicy" && slices.Contains(operators, action) {
					broken = append(broken, s.where+" allows "+action)
				}
				if action == "secretsmanager:TagResource" && !reflect.DeepEqual(object(s.body["Condition"]), map[string]any{
					"StringEquals": map[string]any{"aws:RequestTag/tokenturn:stack": ref("AWS::StackName")},
					"ForAllValues:StringEquals": map[string]any{"aws:TagKeys": []any{"tokenturn:stack", "tokenturn:connection",
						"tokenturn:environment"}}}) {
					broken = append(broken, s.where+" allows to set any tag")
				}
			}
		}
	}
	return broken
}

// keysInContext: a role may use the key of the stores only for the secrets and the topic that it reaches.
func keysInContext(t template) (broken []string) {
	const trial = "RequestToValidateKeyAccess" // see newSecrets
	within := map[string][]string{"RotatePolicy": {appSecrets, connectionNames, trial}, "CallbackPolicy": {appSecrets},
		"ReaderPolicy": {connectionNames}, "OperatorPolicy": {secretNames + "*", trial}}
	for policy, contexts := range within {
		for _, s := range t.policy(policy) {
			conditions := object(s.body["Condition"])
			via := fmt.Sprint(object(conditions["StringEquals"])["kms:ViaService"])
			secrets := unwrapped(object(conditions["StringLike"])["kms:EncryptionContext:SecretARN"])
			topic := object(conditions["StringEquals"])["kms:EncryptionContext:aws:sns:topicArn"]
			if strings.Contains(via, "secretsmanager.") && (len(secrets) == 0 || outside(secrets, contexts)) ||
				strings.Contains(via, "sns.") && !reflect.DeepEqual(topic, ref("Notices")) {
				broken = append(broken, fmt.Sprint(s.where, " uses the key of the stores for ", conditions))
			}
		}
	}
	return broken
}

// queuesOfOneUse: the functions send to the queue of follow-ups, one reads it, and lost sweeps are only ever sent.
func queuesOfOneUse(t template) (broken []string) {
	polling := []string{"sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"}
	want := map[string]string{"RotatePolicy": fmt.Sprint(polling, " [FollowUps Arn] ", []string{"sqs:SendMessage"},
		" [LostSweeps Arn] "),
		"CallbackPolicy": "[sqs:SendMessage] [FollowUps Arn] "}
	for policy, want := range want {
		got := ""
		for _, s := range t.policy(policy) {
			if strings.HasPrefix(s.actions[0], "sqs:") {
				got += fmt.Sprint(s.actions, " ", s.resourceText(), " ")
			}
		}
		if got != want {
			broken = append(broken, policy+" allows "+got)
		}
	}
	return broken
}

// ownStack: the operator's command reads its settings from the outputs of this stack. The last part of a stack's ARN is
// an id, and IAM sees the name alone while the stack does not exist.
func ownStack(t template) (broken []string) {
	const own = "arn:${AWS::Partition}:cloudformation:${AWS::Region}:${AWS::AccountId}:stack/${AWS::StackName}/*"
	want := map[string]string{"OperatorPolicy": fmt.Sprint([]string{"cloudformation:DescribeStacks"}, []string{own})}
	for _, policy := range []string{"RotatePolicy", "CallbackPolicy", "ReaderPolicy", "OperatorPolicy"} {
		got := ""
		for _, s := range t.policy(policy) {
			if slices.ContainsFunc(s.actions, func(a string) bool { return strings.HasPrefix(a, "cloudformation:") }) {
				got += fmt.Sprint(s.actions, s.resourceTexts())
			}
		}
		if got != want[policy] {
			broken = append(broken, policy+" allows "+got)
		}
	}
	return broken
}

// scheduleHasOneFunction: EventBridge Scheduler may invoke the rotate function, and keep what it could not deliver.
func scheduleHasOneFunction(t template) (broken []string) {
	got := ""
	for _, inline := range list(t.resource("ScheduleRole").at("Policies")) {
		for _, s := range statements("ScheduleRole", object(inline)["PolicyDocument"]) {
			got += fmt.Sprint(s.actions, " ", s.resourceText(), " ")
		}
	}
	if got != "[lambda:InvokeFunction] [RotateFunction Arn] [sqs:SendMessage] [LostSweeps Arn] " {
		broken = append(broken, "the schedule may "+got)
	}
	return broken
}

// servicesForThisAccount: what an AWS service may do, it may for this account's resources; who else has such
// a resource could make it act for them. Lambda assumes roles for functions of the role's own account only.
func servicesForThisAccount(t template) (broken []string) {
	for _, s := range t.statements() {
		service := fmt.Sprint(object(s.body["Principal"])["Service"])
		conditions := fmt.Sprint(s.body["Condition"])
		bound := strings.Contains(conditions, "aws:SourceAccount:map[Ref:AWS::AccountId]") || strings.Contains(conditions,
			":${AWS::AccountId}:log-group:${AWS::StackName}-*")
		if service != "<nil>" && service != "lambda.amazonaws.com" && !bound {
			broken = append(broken, s.where+" lets "+service+" act for anybody")
		}
	}
	return broken
}

// outside reports whether some text is none of those.
func outside(all, within []string) bool {
	return slices.ContainsFunc(all, func(one string) bool { return !slices.Contains(within, one) })
}

// unwrapped are texts, with Fn::Sub round them or not.
func unwrapped(value any) (all []string) {
	for _, one := range list(value) {
		if sub := object(one)["Fn::Sub"]; sub != nil {
			one = sub
		}
		all = append(all, fmt.Sprint(one))
	}
	return all
}

// reportMutations spoils the template in one way after the other. The named rule must report each.
func reportMutations(t *testing.T, spoils [][4]string) {
	t.Helper()
	content, err := os.ReadFile(main)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range spoils {
		what, rule, old, replacement := s[0], s[1], s[2], s[3]
		spoilt := strings.Replace(string(content), old, replacement, 1)
		if spoilt == string(content) {
			t.Errorf("%s: the template does not contain %s", what, old)
		} else if broken := brokenRules(t, spoilt); !slices.Contains(broken, rule) {
			t.Errorf("%s: only %v are broken", what, broken)
		}
	}
}

func TestRulesOfRightsBite(t *testing.T) {
	const (
		sub      = "!Sub " + connectionNames
		anything = "!Sub arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret:*"
		account  = "              StringEquals: {aws:SourceAccount: !Ref AWS::AccountId}\n"
	)
	reportMutations(t, [][4]string{
		{"readers of app credentials", "secrets-in-scope", "Resource: " + sub + "\n          - Sid: AtRest",
			"Resource: !Sub " + secretNames + "*\n          - Sid: AtRest"},
		{"readers that write", "secrets-in-scope", "secretsmanager:DescribeSecret\n              - " +
			"secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret\n              - secretsmanager:PutSecretValue"},
		{"operators that delete any secret", "secrets-in-scope", "- secretsmanager:RestoreSecret\n            Resource: " +
			sub, "- secretsmanager:RestoreSecret\n            Resource: " + anything},
		{"tags of any kind", "secrets-in-scope", "StringEquals: {aws:RequestTag/tokenturn:stack: !Ref AWS::StackName}",
			"Bool: {aws:SecureTransport: true}"},
		{"a key for every secret there is", "keys-in-context", "- " + sub +
			"\n                  - RequestToValidateKeyAccess", "- " + anything +
			"\n                  - RequestToValidateKeyAccess"},
		{"a key for every topic", "keys-in-context", "\n                kms:EncryptionContext:aws:sns:topicArn: !Ref Notices",
			""},
		{"rotate reads dead letters", "queues-of-one-use", "Resource: !GetAtt FollowUps.Arn\n          - Sid: Notices",
			"Resource: [!GetAtt FollowUps.Arn, !GetAtt DeadLetters.Arn]\n          - Sid: Notices"},
		{"rotate reads lost sweeps", "queues-of-one-use", "Sid: LostSweeps\n                Effect: " +
			"Allow\n                Action: sqs:SendMessage", "Sid: LostSweeps\n                Effect: " +
			"Allow\n                Action: [sqs:ReceiveMessage, sqs:SendMessage]"},
		{"operators that read any stack", "own-stack", ":stack/${AWS::StackName}/*", ":stack/*"},
		{"operators that list stacks", "own-stack", "Action: cloudformation:DescribeStacks",
			"Action: [cloudformation:DescribeStacks, cloudformation:ListStacks]"},
		{"the schedule invokes both functions", "schedule-one-function",
			"                Resource: !GetAtt RotateFunction.Arn", "                Resource: [!GetAtt RotateFunction.Arn, " +
				"!GetAtt CallbackFunction.Arn]"},
		{"anybody's schedule", "services-for-this-account", "            Condition:\n" + account + "      Policies",
			"      Policies"},
		{"anybody's alarm at the topic", "services-for-this-account", account + "              ArnLike: {aws:SourceArn: " +
			"!Sub \"arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:${AWS::StackName}-*\"}\n         " +
			" - Sid: TlsOnly", "              Bool: {aws:SecureTransport: true}\n          - Sid: TlsOnly"},
		{"anybody's logs under the key", "services-for-this-account", "${AWS::AccountId}:log-group:${AWS::StackName}-*",
			"*:log-group:*"},
	})
}
