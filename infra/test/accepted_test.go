package infra_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Rules for what only AWS refuses, or understands differently: cfn-lint and moto accept it silently.

// queuePolicies: SQS refuses a policy with statements about other queues, and several resources in one.
// (Amazon SQS developer guide, API version 2011-10-01, Special Information for SQS Policies.)
func queuePolicies(t template) (broken []string) {
	covered := map[string]bool{}
	for name, r := range t.ofType("AWS::SQS::QueuePolicy") {
		queues := list(r.at("Queues"))
		for _, queue := range queues {
			covered[text(object(queue)["Ref"])] = true
		}
		for _, s := range statements(name, r.at("PolicyDocument")) {
			if len(queues) != 1 || !reflect.DeepEqual(s.resources, []any{getAtt(text(object(queues[0])["Ref"]), "Arn")}) {
				broken = append(broken, s.where+" is not about the one queue that has it")
			}
		}
	}
	for name := range t.ofType(queueKind) {
		if !covered[name] {
			broken = append(broken, name+" has no policy")
		}
	}
	return broken
}

// newSecrets: before Secrets Manager creates a secret under a customer's key, it tests the key on behalf of the caller.
// The encryption context then has a marker in place of the version's id and, before the secret has one, of the ARN.
// (AWS Secrets Manager user guide, Secret encryption and decryption, "Validating access to the KMS key".)
func newSecrets(t template) (broken []string) {
	for _, policy := range []string{"RotatePolicy", "CallbackPolicy", "OperatorPolicy"} {
		makes, tries := false, false
		for _, s := range t.policy(policy) {
			makes = makes || slices.Contains(s.actions, "secretsmanager:CreateSecret")
			contexts := texts(list(object(object(s.body["Condition"])["StringLike"])["kms:EncryptionContext:SecretARN"]))
			tries = tries || slices.Equal(s.actions, []string{"kms:Decrypt", "kms:GenerateDataKey"}) && slices.Contains(contexts,
				"RequestToValidateKeyAccess")
		}
		if makes != tries {
			broken = append(broken, policy+" cannot make a secret under the key of the stores, or needs not try it")
		}
	}
	return broken
}

// missingData: an alarm looks further back than its periods, and as long as it finds data points there, missing ones
// do not count. On metrics of AWS/DynamoDB they never do, and the alarm stays in the state it has.
// (Amazon CloudWatch user guide, Configuring how CloudWatch alarms treat missing data.)
func missingData(t template) (broken []string) {
	for name, r := range t.ofType("AWS::CloudWatch::Alarm") {
		metric, filled := watched(r)
		if matters := r.at("TreatMissingData") == "breaching" || metric.at("Namespace") == "AWS/DynamoDB"; matters &&
			!filled {
			broken = append(broken, name+" waits for data points that do not come")
		}
	}
	return broken
}

// alarmsReachPeople: the policies of the topic and of its key match the names of alarms. What they deny shows only in
// an alarm's history.
func alarmsReachPeople(t template) (broken []string) {
	for name, r := range t.ofType("AWS::CloudWatch::Alarm") {
		if !strings.HasPrefix(text(object(r.at("AlarmName"))["Fn::Sub"]), "${AWS::StackName}-") {
			broken = append(broken, name+" may not speak to the topic")
		}
	}
	return broken
}

func alarmsEndAloud(t template) (broken []string) {
	for name, r := range t.ofType("AWS::CloudWatch::Alarm") {
		for _, b := range r.differs("OKActions", r.at("AlarmActions")) {
			broken = append(broken, name+": "+b)
		}
	}
	return broken
}

var pageNamed = regexp.MustCompile(`(infra/[\w/-]+\.md)(?:, section (.+))?$`)

// alarmsNameAPage: an alarm arrives as an e-mail, and its description is the only text that helps.
func alarmsNameAPage(t template) (broken []string) {
	for name, r := range t.ofType("AWS::CloudWatch::Alarm") {
		named := pageNamed.FindStringSubmatch(text(r.at("AlarmDescription")))
		if named == nil {
			broken = append(broken, name+" names no page")
			continue
		}
		page, err := os.ReadFile(filepath.Join("../..", named[1]))
		if err != nil || named[2] != "" && !strings.Contains(string(page), "\n## "+named[2]+"\n") {
			broken = append(broken, name+" names a page or section that is not there: "+named[0])
		}
	}
	return broken
}

// Alarms that wake somebody have a runbook, which the list of runbooks has too.
func TestAlarmsThatWakeSomebodyHaveARunbook(t *testing.T) {
	tmpl, pages := load(t, main), read(t, "../runbooks/README.md")
	for alarm, page := range map[string]string{"NoHeartbeat": "no-heartbeat", "RotateErrors": "rotate-errors",
		"Failed": "failed", "Unpublished": "unpublished", "Denied": "denied", "Backlog": "backlog",
		"NeedsConsent": "needs-consent", "Unknown": "unknown", "Quarantined": "quarantine"} {
		description := text(tmpl.resource(alarm + "Alarm").at("AlarmDescription"))
		if !strings.HasSuffix(description, "Runbook: infra/runbooks/"+page+".md") {
			t.Errorf("%s names no runbook: %s", alarm, description)
		}
		if !strings.Contains(pages, "("+page+".md)") {
			t.Errorf("the list of runbooks has no %s", page)
		}
	}
}

// unfiltered: a line of metrics has no level, and Lambda treats a line without a level as INFO.
func unfiltered(t template) (broken []string) {
	for name := range t.ofType(functionKind) {
		broken = append(broken, t.resolved(name, nil).differs("LoggingConfig.ApplicationLogLevel", "TRACE")...)
	}
	return broken
}

// vendedLogs: the delivery of an access log to a group of another name adds the group to the account's resource
// policies for CloudWatch Logs, which have room for few. (Amazon CloudWatch Logs user guide, Enable logging from AWS
// services, "Log group resource policy size limit considerations".)
func vendedLogs(t template) (broken []string) {
	destination := list(object(t.resource("ApiStage").at("AccessLogSettings.DestinationArn"))["Fn::GetAtt"])
	if len(destination) != 2 {
		return []string{"the stage has no access log"}
	}
	name := text(t.resolved(text(destination[0]), nil).at("LogGroupName"))
	if !strings.HasPrefix(name, "/aws/vendedlogs/") {
		broken = append(broken, "the access log is "+name)
	}
	return broken
}

// logKeys: a group with another name than the key's policy has is refused when it is made.
func logKeys(t template) (broken []string) {
	for _, partition := range partitions {
		var patterns []any
		for _, s := range t.keyPolicy("VaultKey") {
			if strings.HasSuffix(s.where, " LogsAtRest") {
				condition := object(object(s.body["Condition"])["ArnLike"])["kms:EncryptionContext:aws:logs:arn"]
				patterns = list(t.resolve(condition, t.values(partition.values)))
			}
		}
		for group := range t.ofType("AWS::Logs::LogGroup") {
			name, named := t.resolved(group, partition.values).at("LogGroupName").(string)
			if !named {
				name = "example-" + group + "-ABCDEFGHIJKL" // CloudFormation's
			}
			arn := fmt.Sprintf("arn:%v:logs:%v:111122223333:log-group:%s", partition.values["AWS::Partition"],
				partition.values["AWS::Region"], name)
			if !slices.ContainsFunc(patterns, func(pattern any) bool {
				prefix, open := strings.CutSuffix(text(pattern), "*")
				return open && strings.HasPrefix(arn, prefix)
			}) {
				broken = append(broken, "the key's policy does not have "+arn)
			}
		}
	}
	return broken
}

// watched is the metric of an alarm, as properties of a resource, and whether time without data points counts as 0.
func watched(alarm resource) (metric resource, filled bool) {
	if alarm.at("Metrics") == nil {
		return alarm, false
	}
	properties := map[string]any{}
	for _, m := range list(alarm.at("Metrics")) {
		query := object(m)
		filled = filled || query["Expression"] == "FILL(measured, 0)" && query["ReturnData"] == nil
		if stat := object(query["MetricStat"]); stat != nil && query["Id"] == "measured" && query["ReturnData"] == false {
			properties["Statistic"], properties["Period"] = stat["Stat"], stat["Period"]
			for name, value := range object(stat["Metric"]) {
				properties[name] = value
			}
		}
	}
	return resource{"Properties": properties}, filled
}

// Each of these mutations would deploy to moto but not work on AWS. The named rule must report it.
func TestRulesOfServicesBite(t *testing.T) {
	reportMutations(t, [][4]string{
		{"one policy for two queues", "queue-policies", "Queues: [!Ref FollowUps]",
			"Queues: [!Ref FollowUps, !Ref DeadLetters]"},
		{"two queues in a statement", "queue-policies", "Resource: !GetAtt LostSweeps.Arn\n            Condition",
			"Resource: [!GetAtt LostSweeps.Arn, !GetAtt FollowUps.Arn]\n            Condition"},
		{"a key that is not tried", "new-secrets", "\n                  - RequestToValidateKeyAccess", "\n                 "},
		{"a heartbeat that is missed in silence", "missing-data", "FILL(measured, 0)", "measured"},
		{"a throttle that is never over", "missing-data", "Namespace: AWS/Lambda\n      MetricName: Errors",
			"Namespace: AWS/DynamoDB\n      MetricName: SystemErrors"},
		{"an alarm that the topic does not know", "alarms-reach-people", "AlarmName: !Sub ${AWS::StackName}-drift",
			"AlarmName: !Sub drift-${AWS::StackName}"},
		{"an alarm that ends in silence", "alarms-end-aloud", "      OKActions: [!Ref Notices]\n", ""},
		{"an access log that fills the account's policies", "vended-logs", "/aws/vendedlogs/${AWS::StackName}-api",
			"/${AWS::StackName}-api"},
		{"an access log that the key does not know", "log-keys", "/aws/vendedlogs/${AWS::StackName}-api",
			"/aws/vendedlogs/api-${AWS::StackName}"},
		{"few tries for a message that waits for the function", "queue", "maxReceiveCount: 5", "maxReceiveCount: 1"},
		{"many runs at once", "queue", "MaximumConcurrency: 2", "MaximumConcurrency: 50"},
		{"a message that comes back while its run goes on", "queue", "VisibilityTimeout: 960", "VisibilityTimeout: 900"},
		{"a message that comes back when tokens have died", "queue", "VisibilityTimeout: 960", "VisibilityTimeout: 5400"},
		{"an alarm at every long run", "backlog", "Threshold: 1830", "Threshold: 1200"},
		{"an alarm that a message leaves unseen", "backlog", "Threshold: 1830", "Threshold: 3000"},
		{"a sweep that fails once", "once", "MaximumRetryAttempts: 2\n", "MaximumRetryAttempts: 0\n"},
		{"a sweep that is cut off", "once", "MaximumEventAgeInSeconds: 1800", "MaximumEventAgeInSeconds: 900"},
		{"a sweep that is repeated for hours", "once", "MaximumEventAgeInSeconds: 1800", "MaximumEventAgeInSeconds: 21600"},
		{"a sweep that is not handed over at first", "schedule", "MaximumRetryAttempts: 185", "MaximumRetryAttempts: 0"},
		{"callbacks twice", "once", "EventInvokeConfig: {MaximumRetryAttempts: 0}",
			"EventInvokeConfig: {MaximumRetryAttempts: 2}"},
		{"logs as text", "logs", "LogFormat: JSON", "LogFormat: Text"},
		{"a log format that GovCloud refuses", "logs", "HasJsonLogs: !Not [!Condition IsGovCloud]",
			"HasJsonLogs: !Not [!Condition IsChina]"},
		{"a log group that no function has", "logs", "/aws/lambda/${AWS::StackName}-rotate\"]",
			"/aws/lambda/${AWS::StackName}-rotation\"]"},
		{"metrics that Lambda filters away", "unfiltered", "ApplicationLogLevel: TRACE", "ApplicationLogLevel: WARN"},
		{"a short wait of the API", "integration", "TimeoutInMillis: 30000", "TimeoutInMillis: 3000"},
		{"a stage that may not call", "integration", "${Api}/$default/*", "${Api}/prod/*"},
	})
}
