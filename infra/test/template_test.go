package infra_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
)

// rules are what the template must keep. Each returns what breaks it.
var rules = []struct {
	id, says string
	broken   func(template) []string
}{
	{"no-wildcards", "no statement has a wildcard action or principal, or says what is not meant", noWildcards},
	{"named-resources", "roles act on named resources; * is for key policies, where it means the key", namedResources},
	{"callback-sees-no-token", "the callback function reads app credentials and no connection's secret",
		callbackSeesNoToken},
	{"callback-opens-nothing", "the callback function makes data keys of the sealing key and opens none",
		callbackOpensNothing},
	{"callback-vault-key", "the callback function uses the key of the stores for the table, " +
		"the topic and app credentials only", callbackVaultKey},
	{"callback-concludes", "the callback function may end a consent, which is one transaction", callbackConcludes},
	{"callback-one-policy", "the callback function has the rights of one policy", callbackHasOnePolicy},
	{"seal-key-bound", "the sealing key is used for this stack's encryption context only", sealKeyBound},
	{"vault-key-through-stores", "the key of the stores is used through the stores only", vaultKeyThroughStores},
	{"secrets-are-kept", "the rotate function cannot delete, list or share secrets", secretsAreKept},
	{"leading-keys", "the table's items are reached by the keys of their kind", leadingKeys},
	{"retained", "table and keys outlive the stack", retained},
	{"kept-apart", "what is kept refers to nothing that is replaceable but the identities of roles", keptApart},
	{"no-circle", "no resource needs itself", noCircle},
	{"table", "the table is what pkg/dynamo describes, encrypted, recoverable, protected", table},
	{"functions", "functions run on provided.al2023, on the processors that make builds for", functions},
	{"once", "Lambda repeats a failed sweep twice, a callback never, and does not stop chains of follow-ups", once},
	{"schedule", "hourly by default, on the minute, handed to Lambda within 15 minutes", schedule},
	{"queue", "a message comes back after its run is over and before tokens die, and is given up in the end", queue},
	{"backlog", "an alarm says that follow-ups fail before the next sweep, and not while they wait and run", backlog},
	{"queue-policies", "a policy covers one queue, as Amazon SQS wants it", queuePolicies},
	{"new-secrets", "a role that makes secrets passes Secrets Manager's test of their key", newSecrets},
	{"missing-data", "an alarm for which time without data counts fills it in", missingData},
	{"alarms-reach-people", "alarms have names by which topic and key know them", alarmsReachPeople},
	{"alarms-end-aloud", "people learn when an alarm is over, where they learned of it", alarmsEndAloud},
	{"alarms-name-a-page", "an alarm's description names the page that says what to do, and its section",
		alarmsNameAPage},
	{"secrets-in-scope", "each role reaches secrets of this installation, of the kinds it needs, for what it does",
		secretsInScope},
	{"keys-in-context", "the key of the stores serves each role for the secrets and the topic that it reaches",
		keysInContext},
	{"queues-of-one-use", "functions use each queue in one way", queuesOfOneUse},
	{"own-stack", "operators, and nobody else, may read the outputs of this stack and of no other", ownStack},
	{"schedule-one-function", "the schedule invokes one function", scheduleHasOneFunction},
	{"services-for-this-account", "AWS's services act for this account only", servicesForThisAccount},
	{"logs", "functions log JSON where retention and key are set", logs},
	{"unfiltered", "Lambda lets every line of the log pass", unfiltered},
	{"access-log", "the access log has routes, never paths, queries, headers or cookies", accessLog},
	{"vended-logs", "the access log does not use up the account's resource policies for logs", vendedLogs},
	{"log-keys", "the key of the stores encrypts each log group of the stack, in each partition", logKeys},
	{"throttles", "every route is throttled, the ones that reach stores and Procore more tightly", throttles},
	{"integration", "every route of the API leads to the callback function in payload format 2.0", integration},
}

func TestTemplateKeepsTheRules(t *testing.T) {
	tmpl := load(t, main)
	for _, rule := range rules {
		for _, broken := range rule.broken(tmpl) {
			t.Errorf("%s: %s\n\t%s", rule.id, broken, rule.says)
		}
	}
}

// pkg/config accepts the environment of each function, resolved as CloudFormation
// does. Unknown variables and missing ones fail.
func TestFunctionsEnvironmentIsAccepted(t *testing.T) {
	tmpl := load(t, main)
	for _, c := range []struct {
		parameters map[string]any
		publicURL  string
		cadence    time.Duration
	}{
		{nil, "https://abcdefghij.execute-api.us-east-1.amazonaws.com", time.Hour},
		{map[string]any{"Schedule": "rate(15 minutes)", "PublicUrl": "https://connect.example.com",
			"Organization": "(Acme) Müller & Söhne, Inc.", "ReturnOrigins": "https://app.example.com"},
			"https://connect.example.com", 15 * time.Minute},
		{map[string]any{"Schedule": "rate(1 minute)", "SecretPrefix": "a/b", "LogLevel": "debug"},
			"https://abcdefghij.execute-api.us-east-1.amazonaws.com", time.Minute},
	} {
		for function, program := range map[string]config.Program{"RotateFunction": config.Rotate,
			"CallbackFunction": config.Callback} {
			settings, err := config.Read(program, tmpl.environment(function, c.parameters))
			if err != nil {
				t.Errorf("%s with %v: %v", function, c.parameters, err)
				continue
			}
			if settings.Cadence != c.cadence {
				t.Errorf("%s with %v: cadence %v", function, c.parameters, settings.Cadence)
			}
			if settings.Stack != "example" || settings.QueueURL == "" || settings.VaultKey == settings.SealKey {
				t.Errorf("%s: %+v", function, settings)
			}
			if program == config.Callback && settings.PublicURL != c.publicURL {
				t.Errorf("public URL %s", settings.PublicURL)
			}
			if wanted, _ := c.parameters["Organization"].(string); program == config.Callback &&
				settings.Organization != wanted {
				t.Errorf("organization %q", settings.Organization)
			}
			if wanted, _ := c.parameters["ReturnOrigins"].(string); program == config.Callback &&
				strings.Join(settings.ReturnOrigins, ",") != wanted {
				t.Errorf("return origins %q", settings.ReturnOrigins)
			}
		}
	}
}

// The rotate function may make the calls that the secret store's adapter can make, and
// tag what it creates, and nothing else.
func TestSecretStoreActionsAreTheAdaptersCalls(t *testing.T) {
	want := []string{"secretsmanager:TagResource"}
	for method := range reflect.TypeFor[secretsmanager.Client]().Methods() {
		want = append(want, "secretsmanager:"+method.Name)
	}
	got := map[string]bool{}
	for _, s := range load(t, main).policy("RotatePolicy") {
		for _, action := range s.actions {
			if strings.HasPrefix(action, "secretsmanager:") {
				got[action] = true
			}
		}
	}
	slices.Sort(want)
	if actions := slices.Sorted(maps.Keys(got)); !slices.Equal(actions, want) {
		t.Errorf("allowed are %v, called are %v", actions, want)
	}
}

// What the configuration files of sam deploy override must be parameters.
func TestDeploymentsSetParametersThatExist(t *testing.T) {
	parameters := object(load(t, main).root["Parameters"])
	files, err := filepath.Glob("../*.toml")
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range regexp.MustCompile(`(?m)^\s+"(\w+)=([^"]*)",?$`).FindAllStringSubmatch(string(content), -1) {
			parameter := object(parameters[set[1]])
			if parameter == nil {
				t.Errorf("%s: there is no parameter %s", file, set[1])
			}
			if allowed := list(parameter["AllowedValues"]); allowed != nil && !slices.Contains(texts(allowed), set[2]) {
				t.Errorf("%s: %s cannot be %s", file, set[1], set[2])
			}
		}
	}
}

// The page says how to package the template, as long as it does not fit into a request to CloudFormation.
func TestTemplateNeedsABucketAsThePageSays(t *testing.T) {
	const inRequest, inBucket = 51_200, 1 << 20 // bytes: AWS CloudFormation user guide, quotas
	says := strings.Contains(read(t, "../README.md"), "has more than the 51,200 bytes")
	if size := len(read(t, main)); says != (size > inRequest) || size > inBucket {
		t.Errorf("template.yaml has %d bytes; the page says that it needs a bucket: %v", size, says)
	}
}

func noWildcards(t template) (broken []string) {
	for _, s := range t.statements() {
		for _, action := range s.actions {
			if strings.Contains(action, "*") && s.body["Effect"] != "Deny" { // to deny everything is no wildcard right
				broken = append(broken, s.where+" allows "+action)
			}
		}
		for _, principal := range s.principals {
			if s.body["Effect"] == "Deny" { // to deny everybody is no wildcard right
				continue
			}
			if strings.Contains(fmt.Sprint(principal), "*") {
				broken = append(broken, s.where+" names principal "+fmt.Sprint(principal))
			}
		}
		for _, negative := range []string{"NotAction", "NotPrincipal", "NotResource"} {
			if s.body[negative] != nil {
				broken = append(broken, s.where+" has "+negative)
			}
		}
	}
	return broken
}

func namedResources(t template) (broken []string) {
	for _, s := range t.statements() {
		for _, resource := range s.resources {
			if name, ok := resource.(string); ok && !s.isKeyPolicy && !nameless(s.actions) {
				broken = append(broken, s.where+" acts on "+name)
			}
		}
	}
	return broken
}

// nameless are actions of a service that has no resources to name.
func nameless(actions []string) bool {
	return !slices.ContainsFunc(actions, func(a string) bool { return !strings.HasPrefix(a, "xray:Put") })
}

func callbackSeesNoToken(t template) (broken []string) {
	for _, s := range t.policy("CallbackPolicy") {
		for _, action := range s.actions {
			if !strings.HasPrefix(action, "secretsmanager:") {
				continue
			}
			if action != "secretsmanager:GetSecretValue" || s.goesBeyond(":secret:${SecretPrefix}/app/") {
				broken = append(broken, s.where+" allows "+action+" on "+s.resourceText())
			}
		}
	}
	return broken
}

func callbackOpensNothing(t template) (broken []string) {
	for _, s := range t.policy("CallbackPolicy") {
		if strings.Contains(s.resourceText(), "SealKey") && !slices.Equal(s.actions, []string{"kms:GenerateDataKey"}) {
			broken = append(broken, fmt.Sprint(s.where, " allows ", s.actions))
		}
	}
	for _, s := range t.keyPolicy("SealKey") {
		if strings.Contains(fmt.Sprint(s.principals), "CallbackRole") && !slices.Equal(s.actions,
			[]string{"kms:GenerateDataKey"}) {
			broken = append(broken, fmt.Sprint(s.where, " allows ", s.actions))
		}
		// What the account's root may do, an IAM policy could give to anybody.
		if strings.Contains(fmt.Sprint(s.principals), ":root") && (slices.Contains(s.actions, "kms:Decrypt") ||
			slices.Contains(s.actions, "kms:CreateGrant")) {
			broken = append(broken, s.where+" lets IAM policies give the use of the key away")
		}
	}
	return broken
}

func sealKeyBound(t template) (broken []string) {
	stack := map[string]any{"Ref": "AWS::StackName"}
	bound := map[string]any{"StringEquals": map[string]any{"kms:EncryptionContext:tokenturn:stack": stack}}
	for _, s := range t.statements() {
		uses := slices.ContainsFunc(s.actions, func(a string) bool {
			return a == "kms:Decrypt" ||
				a == "kms:GenerateDataKey"
		})
		if uses && (strings.HasPrefix(s.where, "SealKey") || strings.Contains(s.resourceText(), "SealKey")) &&
			!reflect.DeepEqual(s.body["Condition"], bound) {
			broken = append(broken, fmt.Sprint(s.where, " under the condition ", s.body["Condition"]))
		}
	}
	return broken
}

func vaultKeyThroughStores(t template) (broken []string) {
	for _, s := range t.statements() {
		uses := slices.ContainsFunc(s.actions, func(a string) bool {
			return a == "kms:Decrypt" || a == "kms:GenerateDataKey" || a == "kms:CreateGrant"
		})
		condition := object(object(s.body["Condition"])["StringEquals"])
		// AWS's own services use it directly, for what is of this stack.
		bound := object(object(s.body["Condition"])["ArnLike"])
		service := object(s.body["Principal"])["Service"] != nil && len(bound) == 1
		for _, pattern := range bound {
			for _, one := range list(pattern) {
				written := text(object(one)["Fn::Sub"])
				service = service && strings.HasSuffix(written, "${AWS::StackName}-*") && strings.Count(written, "*") == 1
			}
		}
		if uses && (strings.HasPrefix(s.where, "VaultKey") || strings.Contains(s.resourceText(), "VaultKey")) &&
			condition["kms:ViaService"] == nil && !service {
			broken = append(broken, s.where+" uses the key directly")
		}
	}
	return broken
}

func secretsAreKept(t template) (broken []string) {
	allowed := map[string]string{"secretsmanager:CreateSecret": "connection", "secretsmanager:GetSecretValue": "",
		"secretsmanager:ListSecretVersionIds": "connection",
		"secretsmanager:PutSecretValue":       "connection", "secretsmanager:TagResource": "connection",
		"secretsmanager:UpdateSecretVersionStage": "connection"}
	for _, s := range t.policy("RotatePolicy") {
		for _, action := range s.actions {
			kind, known := allowed[action]
			if strings.HasPrefix(action, "secretsmanager:") && (!known || s.goesBeyond(":secret:${SecretPrefix}/"+kind)) {
				broken = append(broken, s.where+" allows "+action+" on "+s.resourceText())
			}
		}
	}
	return broken
}

func leadingKeys(t template) (broken []string) {
	for _, policy := range []string{"RotatePolicy", "CallbackPolicy"} {
		for _, s := range t.policy(policy) {
			condition := object(object(s.body["Condition"])["ForAllValues:StringLike"])
			if strings.Contains(s.resourceText(), "[Table Arn]") && condition["dynamodb:LeadingKeys"] == nil {
				broken = append(broken, s.where+" reaches every item")
			}
			own := []any{nil, "CONN#*", "PACE#*", "NOTICE#*"}
			key := condition["dynamodb:LeadingKeys"]
			makesLinks := key == "INVITE#*" && slices.Equal(s.actions, []string{"dynamodb:PutItem"})
			if strings.HasPrefix(policy, "Rotate") && !slices.Contains(own, key) && !makesLinks {
				broken = append(broken, s.where+" reaches states, or more of invitations than to make them")
			}
		}
	}
	return broken
}

func retained(t template) (broken []string) {
	for _, kind := range []string{"AWS::DynamoDB::Table", "AWS::KMS::Key"} {
		for name, r := range t.ofType(kind) {
			if r["DeletionPolicy"] != "Retain" || r["UpdateReplacePolicy"] != "Retain" {
				broken = append(broken, name+" is not retained")
			}
		}
	}
	return broken
}

func keptApart(t template) (broken []string) {
	resources := t.withoutEvents()
	for name := range resources {
		for _, needed := range cloudformation.Needs(resources[name], resources) {
			if t.resource(name)["DeletionPolicy"] == "Retain" && t.resource(needed)["DeletionPolicy"] != "Retain" &&
				t.resource(needed)["Type"] != role {
				broken = append(broken, name+" needs "+needed)
			}
		}
	}
	return broken
}

func noCircle(t template) []string {
	if _, err := cloudformation.Order(map[string]any{"Resources": t.withoutEvents()}); err != nil {
		return []string{err.Error()}
	}
	return nil
}

func table(t template) (broken []string) {
	r := t.resource("Table")
	for path, want := range map[string]any{
		"BillingMode": "PAY_PER_REQUEST", "DeletionProtectionEnabled": true,
		"PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled": true,
		"SSESpecification.SSEEnabled":                                 true, "SSESpecification.SSEType": "KMS",
		"TimeToLiveSpecification": map[string]any{"AttributeName": "ttl", "Enabled": true},
		"KeySchema":               keys("pk", "sk"),
		"GlobalSecondaryIndexes": []any{map[string]any{"IndexName": "due", "KeySchema": keys("due_bucket", "due_at"),
			"Projection": map[string]any{"ProjectionType": "KEYS_ONLY"}}},
	} {
		broken = append(broken, r.differs(path, want)...)
	}
	return broken
}

func keys(hash, sort string) []any {
	return []any{map[string]any{"AttributeName": hash, "KeyType": "HASH"}, map[string]any{"AttributeName": sort,
		"KeyType": "RANGE"}}
}

func functions(t template) (broken []string) {
	globals := resource{"Properties": object(object(t.root["Globals"])["Function"])}
	broken = append(broken, globals.differs("Runtime", "provided.al2023")...)
	broken = append(broken, globals.differs("Architectures", []any{ref("Architecture")})...)
	broken = append(broken, globals.differs("Handler", "bootstrap")...)
	for name, r := range t.ofType("AWS::Serverless::Function") {
		directory := strings.ToLower(strings.TrimSuffix(name, "Function"))
		broken = append(broken, r.differs("CodeUri", "build/"+directory+"/")...)
		if _, err := os.Stat(filepath.Join("..", "..", "functions", directory, "main.go")); err != nil {
			broken = append(broken, err.Error())
		}
		for _, inherited := range []string{"Runtime", "Architectures", "Handler", "Policies"} {
			if r.at(inherited) != nil {
				broken = append(broken, name+" has its own "+inherited)
			}
		}
		if r["DependsOn"] != strings.TrimSuffix(name, "Function")+"Policy" {
			broken = append(broken, name+" may start before its role has its rights")
		}
	}
	return broken
}

func once(t template) (broken []string) {
	for name, function := range t.ofType(functionKind) {
		retries := 0
		if name == "RotateFunction" {
			retries = 2
		}
		broken = append(broken, function.differs("EventInvokeConfig.MaximumRetryAttempts", retries)...)
	}
	r := t.resource("RotateFunction")
	timeout, _ := r.at("Timeout").(int)
	age, _ := r.at("EventInvokeConfig.MaximumEventAgeInSeconds").(int)
	if longest := timeout + 60; age <= longest || age > untilTokensDie {
		broken = append(broken, fmt.Sprintf("a sweep is repeated for %d s, not for more than %d and at most %d",
			age, longest, untilTokensDie))
	}
	return append(broken, r.differs("RecursiveLoop", "Allow")...)
}

// untilTokensDie is how many seconds after a missed sweep tokens of 5,400 s have
// died, where sweeps are hourly.
const untilTokensDie = 5400 - 3600

func schedule(t template) (broken []string) {
	for parameter, want := range map[string]any{"Schedule": "rate(1 hour)", "FlexibleWindowMinutes": 0} {
		if d := object(object(t.root["Parameters"])[parameter])["Default"]; d != want {
			broken = append(broken, fmt.Sprint("the default of ", parameter, " is ", d))
		}
	}
	r := t.resource("RotateFunction")
	for path, want := range map[string]any{
		"Type": "ScheduleV2", "Properties.Name": map[string]any{"Fn::Sub": "${AWS::StackName}-sweep"},
		"Properties.ScheduleExpression": map[string]any{"Ref": "Schedule"},
		"Properties.FlexibleTimeWindow": map[string]any{"Fn::If": []any{"HasFlexibleWindow",
			map[string]any{"Mode": "FLEXIBLE", "MaximumWindowInMinutes": map[string]any{"Ref": "FlexibleWindowMinutes"}},
			map[string]any{"Mode": "OFF"}}},
		"Properties.RetryPolicy.MaximumRetryAttempts": 185, "Properties.RetryPolicy.MaximumEventAgeInSeconds": 900,
		"Properties.Input": `{"op":"sweep"}`, "Properties.DeadLetterConfig.Arn": getAtt("LostSweeps", "Arn"),
	} {
		broken = append(broken, r.differs("Events.Sweep."+path, want)...)
	}
	return broken
}

func queue(t template) (broken []string) {
	function, q := t.resource("RotateFunction"), t.resource("FollowUps")
	timeout, _ := function.at("Timeout").(int)
	hidden, _ := q.at("VisibilityTimeout").(int)
	if shortest := timeout + 60; hidden < shortest || hidden >= untilTokensDie {
		broken = append(broken, fmt.Sprintf("a message is hidden for %d s, not for at least %d and less than %d",
			hidden, shortest, untilTokensDie))
	}
	broken = append(broken, q.differs("RedrivePolicy.deadLetterTargetArn", getAtt("DeadLetters", "Arn"))...)
	// what AWS advises at least, for throttles count
	broken = append(broken, q.differs("RedrivePolicy.maxReceiveCount", 5)...)
	broken = append(broken, function.differs("Events.FollowUps.Properties.ScalingConfig.MaximumConcurrency", 2)...)
	broken = append(broken, function.differs("Events.FollowUps.Properties.FunctionResponseTypes",
		[]any{"ReportBatchItemFailures"})...)
	return append(broken, function.differs("Events.FollowUps.Properties.Queue", getAtt("FollowUps", "Arn"))...)
}

// backlog: Amazon SQS leaves a message out of ApproximateAgeOfOldestMessage once it was received three times, so the
// age must be reached before the third time. (Amazon SQS developer guide, Available CloudWatch metrics.)
func backlog(t template) (broken []string) {
	timeout, _ := t.resource("RotateFunction").at("Timeout").(int)
	hidden, _ := t.resource("FollowUps").at("VisibilityTimeout").(int)
	age, _ := t.resource("BacklogAlarm").at("Threshold").(int)
	period, _ := t.resource("BacklogAlarm").at("Period").(int)
	if longest := int(rotation.MaxDelay.Seconds()) + timeout; age <= longest || age+period > 2*hidden {
		broken = append(broken, fmt.Sprintf("it goes off at %d s, and a message waits and runs for %d s, and comes a third "+
			"time after %d s", age, longest, 2*hidden))
	}
	return append(broken, t.resource("BacklogAlarm").differs("Dimensions",
		[]any{map[string]any{"Name": "QueueName", "Value": getAtt("FollowUps", "QueueName")}})...)
}

// logs: a function's log has a group of the stack, which has the retention and the key. Where Lambda knows no JSON
// format, that is the group that has the function's name.
func logs(t template) (broken []string) {
	for name := range t.ofType(functionKind) {
		group := strings.TrimSuffix(name, "Function") + "Logs"
		for _, partition := range partitions {
			function, logGroup := t.resolved(name, partition.values), t.resolved(group, partition.values)
			where := name + " in " + text(partition.values["AWS::Partition"])
			logName, own := "/aws/lambda/"+text(function.at("FunctionName")), logGroup.at("LogGroupName")
			switch {
			case partition.jsonLogs && own != nil:
				broken = append(broken, where+" has a log group with a name of its own")
			case partition.jsonLogs:
				broken = append(broken, function.differs("LoggingConfig.LogFormat", "JSON")...)
				broken = append(broken, function.differs("LoggingConfig.LogGroup", "example-"+group)...)
			case function.at("LoggingConfig") != nil:
				broken = append(broken, where+" has a LoggingConfig, which is refused there")
			case own != logName:
				broken = append(broken, fmt.Sprintf("%s logs to %s and not to %v", where, logName, own))
			}
		}
	}
	return broken
}

func getAtt(resource, attribute string) map[string]any {
	return map[string]any{"Fn::GetAtt": []any{resource, attribute}}
}

// main is the stack's template.
const main = "../../template.yaml"

func load(t *testing.T, path string) template {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root, err := cloudformation.Parse(content)
	if err != nil {
		t.Fatal(err)
	}
	return template{root}
}
