package awsstack

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/doctor"
)

var bareName = regexp.MustCompile(
	`"(Condition|KeyCondition|Update)Expression":"(attribute_exists\(|REMOVE )?[a-z]\w*\b[^(]`)

// The finding names each action that IAM refuses.
func TestRefusedPermissionsAreNamed(t *testing.T) {
	refuses := ""
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		if body, _ := io.ReadAll(r.Body); bareName.Match(body) { // DynamoDB reserves several hundred words
			t.Errorf("%s has a name without an alias: %s", operation, body)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		code := "ResourceNotFoundException"
		if refuses == "" || operation == refuses {
			code = "AccessDeniedException"
		}
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"` + code + `","message":"no"}`))
	}))
	defer cloud.Close()
	stack := openAt(t, cloud)

	all := stack.examinePermissions(t.Context())
	for _, action := range []string{"dynamodb:PutItem", "dynamodb:Query on the index due", "dynamodb:BatchGetItem",
		"secretsmanager:PutSecretValue", "secretsmanager:DeleteSecret"} {
		if len(all) != 1 || all[0].Level != doctor.Problem || !strings.Contains(all[0].Detail, action) {
			t.Errorf("%s is not named in %+v", action, all)
		}
	}
	for _, check := range []doctor.Check{stack.examineTable, stack.examineQueue} {
		if found := check(t.Context()); len(found) != 1 || found[0].Level != doctor.Warning ||
			!strings.HasPrefix(found[0].Remedy, "allow ") {
			t.Errorf("without permission to read: %+v", found)
		}
	}
	refuses = "RestoreSecret"
	if found := stack.examinePermissions(t.Context()); len(found) != 1 ||
		found[0].Detail != "this role is not allowed: secretsmanager:RestoreSecret" {
		t.Errorf("one refused action: %+v", found)
	}
}

// openAt opens the stack with cloud as AWS.
func openAt(t *testing.T, cloud *httptest.Server) *Stack {
	t.Helper()
	t.Setenv("AWS_ENDPOINT_URL", cloud.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIA")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	return open(t, "TOKENTURN_QUEUE_URL="+cloud.URL+"/111122223333/q",
		"TOKENTURN_TOPIC_ARN=arn:aws:sns:us-east-1:111122223333:t")
}

// A stack as in template.yaml has no finding, and each deviation is one.
func TestWhatDeviatesFromTheTemplate(t *testing.T) {
	const table = `{"Table":{"KeySchema":[{"AttributeName":"pk","KeyType":"HASH"},{"AttributeName":"sk","KeyType":"RANGE"}],"GlobalSecondaryIndexes":[{"IndexName":"due",` +
		`"IndexStatus":"ACTIVE","KeySchema":[{"AttributeName":"due_bucket","KeyType":"HASH"},{"AttributeName":"due_at","KeyType":"RANGE"}]}]}}`
	order := map[string]string{
		"DescribeTable":             table,
		"DescribeTimeToLive":        `{"TimeToLiveDescription":{"TimeToLiveStatus":"ENABLED"}}`,
		"DescribeContinuousBackups": `{"ContinuousBackupsDescription":{"PointInTimeRecoveryDescription":{"PointInTimeRecoveryStatus":"ENABLED"}}}`,
		"GetQueueAttributes":        `{"Attributes":{"ApproximateNumberOfMessages":"100"}}`,
		"Query":                     `{"Items":[{"pk":{"S":"CONN#sandbox/acme"},"sk":{"S":"LEDGER"}}]}`,
		"BatchGetItem":              `{"Responses":{"t":[{"pk":{"S":"CONN#sandbox/acme"},"record":{"M":{"connection":{"S":"sandbox/acme"}}}}]}}`,
		"GetResourcePolicy":         `{"ResourcePolicy":"{}"}`,
		"GetTopicAttributes": `<GetTopicAttributesResponse><GetTopicAttributesResult><Attributes><entry><key>SubscriptionsConfirmed</key><value>2</value></entry>` +
			`</Attributes></GetTopicAttributesResult></GetTopicAttributesResponse>`,
	}
	var answers map[string]string
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		if operation == "" { // SNS has forms and XML
			operation = r.PostFormValue("Action")
		}
		_, _ = w.Write([]byte(answers[operation]))
	}))
	defer cloud.Close()
	stack := openAt(t, cloud)
	found := func() (all []doctor.Finding) {
		for _, check := range []doctor.Check{stack.examineTable, stack.examineQueue, stack.examineTopic,
			stack.examineProtections} {
			all = append(all, check(t.Context())...)
		}
		return all
	}
	answers = order
	if all := found(); len(all) != 4 || doctor.Worst(all) != doctor.OK {
		t.Errorf("findings without a deviation: %+v", all)
	}
	for _, c := range []struct {
		operation, is, instead string
		level                  doctor.Level
		says                   string
	}{
		{"DescribeTable", `"sk"`, `"other"`, doctor.Problem, "its keys are not pk and sk"},
		{"DescribeTable", `"due_at"`, `"other"`, doctor.Problem, "no active index due"},
		{"DescribeTable", "ACTIVE", "CREATING", doctor.Problem, "no active index due"},
		{"DescribeTimeToLive", "ENABLED", "DISABLED", doctor.Warning, "time to live is off"},
		{"DescribeContinuousBackups", "ENABLED", "DISABLED", doctor.Warning, "point-in-time recovery is off"},
		{"GetQueueAttributes", "100", "101", doctor.Problem, "101 messages wait in it"},
		{"GetTopicAttributes", ">2<", ">0<", doctor.Warning, "no confirmed subscription"},
		{"GetResourcePolicy", "ResourcePolicy", "ARN", doctor.Warning,
			"1 of 1 secrets have no resource policy, such as the secret of sandbox/acme"},
	} {
		answers = maps.Clone(order)
		answers[c.operation] = strings.Replace(order[c.operation], c.is, c.instead, 1)
		causes := doctor.Causes(found())
		gravest, rest := causes[len(causes)-1], causes[:len(causes)-1]
		if gravest.Level != c.level || !strings.Contains(gravest.Findings[0].Detail, c.says) || gravest.Remedy == "" ||
			len(rest) > 0 && rest[len(rest)-1].Level != doctor.OK {
			t.Errorf("%s with %s: %+v", c.operation, c.instead, causes)
		}
	}
}
