package infra_test

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// question is what public scanners ask of a kind of resource: checkov (CKV_),
// cfn-nag (F and W) and the rule sets of cfn-guard, which have the names of
// AWS Config's rules. One predicate answers all questions about the same property.
type question struct {
	ids   string
	kind  string
	asks  string
	holds func(subject) bool
	// but says of resources why the answer is no. "all" is for every one of the kind.
	but map[string]string
	// bad is a resource that must be found fault with; nil: an empty one.
	bad map[string]any
}

// subject is a resource with its properties, those of Globals included.
type subject struct {
	template
	resource
	name string
}

const (
	noVPC = "it calls Procore and public endpoints of AWS, and nothing that is in a network of one's own; " +
		"TLS and IAM guard the way"
	noKMSOfEnv = "the variables are names and settings, of which none is secret; a key more to call at each start " +
		"would be one more thing to fail"
	noSigning = "a signing profile is an account's own; sam deploy compares the hash of what it uploads"
	strangers = "strangers are to come here: an invitation's secret link, or a state with its cookie, " +
		"is what lets them in (pkg/consent)"
	byParameter = "LogRetentionDays decides, 365 in infra/production.toml; an audit trail is the connection's history"
	ownPolicy   = "a right of one role alone, which lives and dies with it"
	namedAlarm  = "the name is what people read, the topic's policy goes by it, and no change of an alarm's other " +
		"properties replaces it"
	ownBackup = "point-in-time recovery goes back 35 days, to any second; a backup from before has refresh tokens that " +
		"were used since, and a plan is an account's own, by tags or by this ARN (infra/README.md, What is kept)"
	noTraceARN = "X-Ray's two actions of writing take no resource"
)

const (
	functionKind, tableKind, keyKind, queueKind, topicKind = "AWS::Serverless::Function", "AWS::DynamoDB::Table",
		"AWS::KMS::Key", "AWS::SQS::Queue", "AWS::SNS::Topic"
	role, rolePolicy, managedPolicy = "AWS::IAM::Role", "AWS::IAM::RolePolicy", "AWS::IAM::ManagedPolicy"
)

var questions = append([]question{
	{"CKV_AWS_115 W92 LAMBDA_CONCURRENCY_CHECK", functionKind, "reserved concurrency", has("ReservedConcurrentExecutions"),
		map[string]string{"CallbackFunction": "the API's throttle bounds it, and small accounts can spare no concurrency"},
		nil},
	{"CKV_AWS_116 LAMBDA_DLQ_CHECK", functionKind, "a dead-letter queue", has("DeadLetterQueue.TargetArn"),
		map[string]string{"CallbackFunction": "only the API calls it, and waits for the answer"}, nil},
	{"CKV_AWS_117 W89 LAMBDA_INSIDE_VPC", functionKind, "a VPC", has("VpcConfig"), map[string]string{"all": noVPC}, nil},
	{"CKV_AWS_173", functionKind, "a customer's key for the environment", has("KmsKeyArn"),
		map[string]string{"all": noKMSOfEnv}, nil},
	{"CKV_AWS_272", functionKind, "signed code", has("CodeSigningConfigArn"), map[string]string{"all": noSigning}, nil},
	{"CKV_AWS_45", functionKind, "no secret in the environment", environmentIsHarmless, nil, bad("Environment.Variables.X",
		"AKIAIOSFODNN7EXAMPLE")},
	{"CKV_AWS_50", functionKind, "traces, where they are wanted", is("Tracing", ref("Tracing")), nil, nil},
	{"CKV_AWS_363", functionKind, "a runtime that is maintained", is("Runtime", "provided.al2023"), nil, nil},
	{"CKV_AWS_258 LAMBDA_FUNCTION_PUBLIC_ACCESS_PROHIBITED", functionKind, "no URL of its own",
		not(has("FunctionUrlConfig")), nil, bad("FunctionUrlConfig.AuthType", "NONE")},
	{"CKV_AWS_364 CKV_AWS_301", "AWS::Lambda::Permission", "one source of this account that may call", namesItsAccount,
		nil, bad("SourceArn", "arn:aws:s3:::x")},
	{"F13 CKV_AWS_301", "AWS::Lambda::Permission", "no wildcard principal", not(is("Principal", "*")), nil,
		bad("Principal", "*")},
	{"W24", "AWS::Lambda::Permission", "nothing but invoking", is("Action", "lambda:InvokeFunction"), nil, nil},

	{"CKV_AWS_28 W78 DYNAMODB_PITR_ENABLED", tableKind, "point-in-time recovery",
		is("PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled", true), nil, nil},
	{"CKV_AWS_119 W74 DYNAMODB_TABLE_ENCRYPTED_KMS", tableKind, "a customer's key",
		all(is("SSESpecification.SSEType", "KMS"), is("SSESpecification.KMSMasterKeyId", getAtt("VaultKey", "Arn"))), nil,
		nil},
	{"DYNAMODB_AUTOSCALING_ENABLED", tableKind, "capacity that follows the load", is("BillingMode", "PAY_PER_REQUEST"),
		nil, nil},
	{"DYNAMODB_TABLE_DELETION_PROTECTION_ENABLED", tableKind, "protection from deletion", is("DeletionProtectionEnabled",
		true), nil, nil},
	{"DYNAMODB_IN_BACKUP_PLAN", tableKind, "a plan of AWS Backup", not(has("PointInTimeRecoverySpecification")),
		map[string]string{"Table": ownBackup}, bad("PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled", true)},
	{"W28", tableKind, "no name of its own, which would stand in the way of a replacement", not(has("TableName")), nil,
		bad("TableName", "x")},

	{"CKV_AWS_7 F19 CMK_BACKING_KEY_ROTATION_ENABLED", keyKind, "rotation", is("EnableKeyRotation", true), nil, nil},
	{"CKV_AWS_33 F76", keyKind, "no wildcard principal", rights(noWildcard), nil, bad("KeyPolicy.Statement",
		[]any{map[string]any{"Effect": "Allow", "Principal": "*"}})},
	{"KMS_CMK_NOT_SCHEDULED_FOR_DELETION", keyKind, "keys that stay",
		func(s subject) bool { return s.resource["DeletionPolicy"] == "Retain" }, nil, nil},

	{"CKV_AWS_27 W48", queueKind, "encryption", is("SqsManagedSseEnabled", true), nil, nil},
	{"CKV_AWS_168 F21", "AWS::SQS::QueuePolicy", "nothing allowed to everybody", rights(noWildcard), nil,
		bad("PolicyDocument.Statement", []any{map[string]any{"Effect": "Allow", "Principal": "*"}})},
	{"AwsSolutions-SQS4", "AWS::SQS::QueuePolicy", "TLS only", tlsOnly("sqs:*"), nil,
		bad("PolicyDocument.Statement", []any{map[string]any{"Effect": "Deny", "Principal": "*",
			"Action":    []any{"sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage"},
			"Condition": map[string]any{"Bool": map[string]any{"aws:SecureTransport": false}}}})},
	{"CKV_AWS_26 W47 SNS_ENCRYPTED_KMS", topicKind, "a customer's key", is("KmsMasterKeyId", getAtt("VaultKey", "Arn")),
		nil, nil},
	{"CKV_AWS_169 F18", "AWS::SNS::TopicPolicy", "nothing allowed to everybody", rights(noWildcard), nil,
		bad("PolicyDocument.Statement", []any{map[string]any{"Effect": "Allow", "Principal": map[string]any{"AWS": "*"}}})},
	{"AwsSolutions-SNS3", "AWS::SNS::TopicPolicy", "TLS only", tlsOnly("sns:Publish"), nil, nil},

	{"CKV_AWS_158 W84 CLOUDWATCH_LOG_GROUP_ENCRYPTED", "AWS::Logs::LogGroup", "a customer's key",
		is("KmsKeyId", getAtt("VaultKey", "Arn")), nil, nil},
	{"CKV_AWS_66 W86 CW_LOGGROUP_RETENTION_PERIOD_CHECK", "AWS::Logs::LogGroup", "an end", has("RetentionInDays"), nil,
		nil},
	{"CKV_AWS_338", "AWS::Logs::LogGroup", "a year", is("RetentionInDays", 365), map[string]string{"all": byParameter},
		nil},

	{"CKV_AWS_95 W46 API_GWV2_ACCESS_LOGS_ENABLED", "AWS::ApiGatewayV2::Stage", "an access log",
		all(has("AccessLogSettings.DestinationArn"), has("AccessLogSettings.Format")), nil, nil},
	{"API_GWV2_THROTTLING", "AWS::ApiGatewayV2::Stage", "a throttle", has("DefaultRouteSettings.ThrottlingRateLimit"), nil,
		nil},
	{"CKV_AWS_309 API_GWV2_AUTHORIZATION_TYPE_CONFIGURED", "AWS::ApiGatewayV2::Route", "an authorizer",
		has("AuthorizationType"), map[string]string{"all": strangers}, nil},

	{"CKV_AWS_60 CKV_AWS_61 F38", role, "one service that may assume the role", oneService, nil,
		bad("AssumeRolePolicyDocument.Statement", []any{map[string]any{"Effect": "Allow",
			"Principal": map[string]any{"AWS": "*"}}})},
	{"F2 W14", role, "nothing but assuming it", trustsOnly, nil, bad("AssumeRolePolicyDocument.Statement",
		[]any{map[string]any{"Effect": "Allow", "Action": "*"}})},
	{"W28", role, "no name of its own", not(has("RoleName")), nil, bad("RoleName", "x")},
	{"W43 CKV_AWS_274", role, "no policy of AWS's making", not(has("ManagedPolicyArns")), nil, bad("ManagedPolicyArns",
		[]any{"arn:aws:iam::aws:policy/AdministratorAccess"})},
	{"IAM_NO_INLINE_POLICY_CHECK", role, "no policy of its own", not(has("Policies")),
		map[string]string{"ScheduleRole": ownPolicy, "RotateRole": ownPolicy}, bad("Policies", []any{map[string]any{}})},
	{"IAM_NO_INLINE_POLICY_CHECK", rolePolicy, "no policy of one role", not(has("RoleName")),
		map[string]string{"all": ownPolicy}, bad("RoleName", "x")},
	{"CKV_AWS_319 CLOUDWATCH_ALARM_ACTION_CHECK", "AWS::CloudWatch::Alarm", "somebody to notify",
		is("AlarmActions", []any{ref("Notices")}), nil, nil},
	{"W28", "AWS::CloudWatch::Alarm", "no name of its own", not(has("AlarmName")), map[string]string{"all": namedAlarm},
		bad("AlarmName", "x")},
}, policyQuestions()...)

// policyQuestions are asked of every policy, wherever it is attached.
func policyQuestions() (asked []question) {
	for _, kind := range []string{role, rolePolicy, managedPolicy} {
		allowing := func(action, what string) map[string]any {
			statements := []any{map[string]any{"Effect": "Allow", "Action": action, "Resource": "arn:x", what: "*"}}
			if kind == role {
				return bad("Policies", []any{map[string]any{"PolicyDocument": map[string]any{"Statement": statements}}})
			}
			return bad("PolicyDocument.Statement", statements)
		}
		var traces map[string]string
		if kind == rolePolicy {
			traces = map[string]string{"all": noTraceARN}
		}
		asked = append(asked,
			question{"CKV_AWS_62 CKV_AWS_63 F3 F4 F5 IAM_POLICY_NO_STATEMENTS_WITH_ADMIN_ACCESS", kind, "no wildcard action",
				rights(func(s statement) bool { return !anyContains(s.actions, "*") }), nil, allowing("s3:*", "")},
			question{"CKV_AWS_111 CKV_AWS_108 W11 W12 W13", kind, "named resources",
				rights(func(s statement) bool { return !slices.Contains(s.resources, any("*")) }), traces, allowing("s3:PutObject",
					"Resource")},
			question{"CKV_AWS_107 CKV_AWS_109 CKV_AWS_110", kind, "no way to more rights", rights(noEscalation), nil,
				allowing("iam:PassRole", "")},
			question{"W15 W16 W17 W21 W22", kind, "rights that say what, and not what else",
				rights(func(s statement) bool { return s.body["NotAction"] == nil && s.body["NotResource"] == nil }), nil,
				allowing("s3:PutObject", "NotResource")},
		)
	}
	return asked
}

// The answer is yes, or there is a reason; and no reason is left over.
func TestScannersFindNothingUnexplained(t *testing.T) {
	tmpl := load(t, main)
	for _, q := range questions {
		reasons := maps.Clone(q.but)
		for name := range tmpl.ofType(q.kind) {
			reason := q.but[name]
			if reason == "" {
				reason = q.but["all"]
			}
			holds := q.holds(subject{tmpl, tmpl.effective(name), name})
			switch {
			case !holds && reason == "":
				t.Errorf("%s: %s lacks %s", q.ids, name, q.asks)
			case holds && q.but[name] != "":
				t.Errorf("%s: %s has %s, and yet a reason why not: %s", q.ids, name, q.asks, q.but[name])
			}
			if !holds {
				delete(reasons, name)
				delete(reasons, "all")
			}
		}
		for name := range reasons {
			t.Errorf("%s: there is a reason for %s, and nothing that it explains", q.ids, name)
		}
		if len(tmpl.ofType(q.kind)) == 0 {
			t.Errorf("%s: the template has no %s", q.ids, q.kind)
		}
		if bad := (resource{"Type": q.kind, "Properties": q.bad}); q.holds(subject{tmpl, bad, "Bad"}) {
			t.Errorf("%s: nothing lacks %s, not even %v", q.ids, q.asks, q.bad)
		}
	}
}

// A kind of resource that no scanner asks about must be reviewed before it is used.
func TestEveryKindOfResourceIsAskedAbout(t *testing.T) {
	plain := []string{ // without anything that scanners ask about
		"AWS::ApiGatewayV2::Api", "AWS::ApiGatewayV2::Integration", "AWS::CloudWatch::Dashboard"}
	tmpl := load(t, main)
	for name := range object(tmpl.root["Resources"]) {
		kind := text(tmpl.resource(name)["Type"])
		if !slices.Contains(plain, kind) && !slices.ContainsFunc(questions, func(q question) bool { return q.kind == kind }) {
			t.Errorf("nobody asks about %s, a %s", name, kind)
		}
	}
	// CKV_AWS_149, CKV_AWS_304, W77, SECRETSMANAGER_USING_CMK: secrets are made at
	// run time, under the secret store key, which pkg/secretsmanager tests.
	if n := len(tmpl.ofType("AWS::SecretsManager::Secret")); n > 0 {
		t.Errorf("%d secrets are part of the stack", n)
	}
}

// checkov.yaml skips what has a reason here.
func TestCheckovSkipsWhatHasAReason(t *testing.T) {
	content, err := os.ReadFile("checkov.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var settings struct {
		Skip []string `yaml:"skip-check"`
	}
	if err := yaml.Unmarshal(content, &settings); err != nil {
		t.Fatal(err)
	}
	// CKV_AWS_297, a customer's key for the schedule: its input is {"op":"sweep"}.
	want := []string{"CKV_AWS_297"}
	for _, q := range questions {
		for id := range strings.FieldsSeq(q.ids) {
			if q.but != nil && strings.HasPrefix(id, "CKV_") && !slices.Contains(want, id) {
				want = append(want, id)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(settings.Skip)
	if !slices.Equal(settings.Skip, want) {
		t.Errorf("skipped are %v, with a reason %v", settings.Skip, want)
	}
}

// effective is a resource with the properties that Globals give it.
func (t template) effective(name string) resource {
	r := t.resource(name)
	if r["Type"] != functionKind {
		return r
	}
	properties := maps.Clone(object(object(t.root["Globals"])["Function"]))
	maps.Copy(properties, object(r["Properties"]))
	merged := maps.Clone(r)
	merged["Properties"] = properties
	return merged
}

func ref(name string) map[string]any { return map[string]any{"Ref": name} }

// bad is a property that a question must not accept.
func bad(path string, value any) map[string]any {
	for _, name := range slices.Backward(strings.Split(path, ".")) {
		value = map[string]any{name: value}
	}
	return object(value)
}

func has(path string) func(subject) bool {
	return func(s subject) bool { return s.at(path) != nil }
}

func is(path string, want any) func(subject) bool {
	return func(s subject) bool { return reflect.DeepEqual(s.at(path), want) }
}

func not(holds func(subject) bool) func(subject) bool {
	return func(s subject) bool { return !holds(s) }
}

func all(holds ...func(subject) bool) func(subject) bool {
	return func(s subject) bool {
		return !slices.ContainsFunc(holds, func(h func(subject) bool) bool { return !h(s) })
	}
}

// policies are the statements of a resource, without the trust policy of a role.
func (s subject) policies() []statement {
	found := append(statements(s.name, s.at("PolicyDocument")), statements(s.name, s.at("KeyPolicy"))...)
	for _, inline := range list(s.at("Policies")) {
		found = append(found, statements(s.name, object(inline)["PolicyDocument"])...)
	}
	return found
}

// rights asks for a property of every statement that allows, and of the trust as well.
func rights(holds func(statement) bool) func(subject) bool {
	return func(s subject) bool {
		every := append(s.policies(), statements(s.name, s.at("AssumeRolePolicyDocument"))...)
		return !slices.ContainsFunc(every, func(st statement) bool { return st.body["Effect"] == "Allow" && !holds(st) })
	}
}

func noWildcard(s statement) bool {
	return !slices.ContainsFunc(s.principals, func(p any) bool { return strings.Contains(fmt.Sprint(p), "*") })
}

func noEscalation(s statement) bool {
	return !slices.ContainsFunc(s.actions, func(a string) bool {
		return strings.HasPrefix(a, "iam:") || strings.HasPrefix(a, "sts:") && a != "sts:AssumeRole" ||
			strings.HasPrefix(a, "lambda:") && a != "lambda:InvokeFunction" || a == "kms:PutKeyPolicy" || a == "kms:CreateGrant"
	})
}

func anyContains(texts []string, part string) bool {
	return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(t, part) })
}

func oneService(s subject) bool {
	trust := statements(s.name, s.at("AssumeRolePolicyDocument"))
	return len(trust) == 1 && len(trust[0].principals) == 1 && object(trust[0].body["Principal"])["Service"] != nil
}

func trustsOnly(s subject) bool {
	trust := statements(s.name, s.at("AssumeRolePolicyDocument"))
	return len(trust) == 1 && slices.Equal(trust[0].actions, []string{"sts:AssumeRole"})
}

// namesItsAccount: a condition on aws:SourceAccount would say the same again, and refuse
// every call of a service that does not send it, as API Gateway nowhere promises to.
func namesItsAccount(s subject) bool {
	return strings.Contains(fmt.Sprint(s.at("SourceArn")), ":${AWS::AccountId}:")
}

// tlsOnly is what cdk-nag asks for: a statement that denies these actions to everybody without TLS. Of a queue, that is
// every action: plain HTTP could otherwise still purge it or make its messages visible.
func tlsOnly(action string) func(subject) bool {
	denied := map[string]any{"Bool": map[string]any{"aws:SecureTransport": false}}
	return func(s subject) bool {
		return slices.ContainsFunc(s.policies(), func(st statement) bool {
			return st.body["Effect"] == "Deny" && reflect.DeepEqual(st.body["Condition"], denied) &&
				slices.Equal(st.principals, []any{"*"}) && slices.Equal(st.actions, []string{action})
		})
	}
}

// environmentIsHarmless: what is not the name of a resource or a parameter is a
// word or a number.
func environmentIsHarmless(s subject) bool {
	word := regexp.MustCompile(`^[A-Za-z0-9.]{0,12}$`)
	for _, value := range object(s.at("Environment.Variables")) {
		if written, ok := value.(string); ok && !word.MatchString(written) {
			return false
		}
	}
	return true
}
