//go:build conformance

package conformance

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
	"github.com/tokenturn/tokenturn/infra/test/permissions"
)

// ofTheSDK are calls that every program with an AWS client contains and ours
// never make: credentials come from Lambda or a profile, endpoints are not discovered.
var ofTheSDK = []string{"dynamodb:DescribeEndpoints", "sso:GetRoleCredentials", "ssooidc:CreateToken",
	"signin:CreateOAuth2Token",
	"sts:AssumeRole", "sts:AssumeRoleWithWebIdentity"}

const (
	polling = "Lambda reads the queue of follow-ups"
	logging = "Lambda writes the log"
	tracing = "Lambda sends the traces"
	byHand  = "by hand, as the runbooks say"
)

// roles are the programs' policies, with what is right although it does not match.
var roles = []struct {
	program, policy, key string
	unused               map[string]string // action that the code's calls would need and the role lacks
	implied              map[string]string // what the role allows and no code of ours asks for
}{
	{"functions/rotate", "RotatePolicy", keyOfRotate, nil, map[string]string{
		"sqs:DeleteMessage": polling, "sqs:GetQueueAttributes": polling, "sqs:ReceiveMessage": polling,
		"logs:CreateLogStream": logging, "logs:PutLogEvents": logging,
		"xray:PutTelemetryRecords": tracing, "xray:PutTraceSegments": tracing,
		"kms:Decrypt VaultKey":         "through DynamoDB, Secrets Manager and SNS",
		"kms:GenerateDataKey VaultKey": "through Secrets Manager and SNS",
	}},
	{"functions/callback", "CallbackPolicy", keyOfCallback, map[string]string{
		"dynamodb:DeleteItem": "a consent deletes no token response: what it replaces has to be revoked first",
	}, map[string]string{
		"logs:CreateLogStream": logging, "logs:PutLogEvents": logging,
		"xray:PutTelemetryRecords": tracing, "xray:PutTraceSegments": tracing,
		"kms:Decrypt VaultKey":         "through DynamoDB, Secrets Manager and SNS",
		"kms:GenerateDataKey VaultKey": "through SNS",
	}},
	{"cmd/tokenturn", "OperatorPolicy", keyOfOperator, map[string]string{
		"kms:Decrypt":         "the sealing key's policy names the operator",
		"kms:GenerateDataKey": "the sealing key's policy names the operator",
	}, map[string]string{
		"kms:Decrypt VaultKey":         "through DynamoDB, Secrets Manager and SNS",
		"kms:GenerateDataKey VaultKey": "through Secrets Manager and SNS",
		"sqs:DeleteMessage":            byHand, "sqs:ListMessageMoveTasks": byHand, "sqs:ReceiveMessage": byHand,
		"sqs:StartMessageMoveTask": byHand,
	}},
}

func template(t *testing.T) map[string]any {
	t.Helper()
	content, err := os.ReadFile("../../../template.yaml")
	if err == nil {
		var parsed map[string]any
		if parsed, err = cloudformation.Parse(content); err == nil {
			return parsed
		}
	}
	t.Fatal(err)
	return nil
}

// TestRolesHaveTheActionsOfTheCode: each role has the actions of the calls that
// its program can make, and no others but those with a reason.
func TestRolesHaveTheActionsOfTheCode(t *testing.T) {
	t.Parallel()
	tmpl := template(t)
	for _, role := range roles {
		calls, err := permissions.Reachable(t.TempDir(), "../../../"+role.program)
		if err != nil {
			t.Fatal(err)
		}
		needed := map[string]bool{}
		for _, call := range calls {
			for _, action := range permissions.Actions(call) {
				needed[action] = needed[action] || !slices.Contains(ofTheSDK, call)
			}
		}
		granted := map[string]bool{} // with the reason's key
		for _, g := range permissions.Granted(tmpl, role.policy) {
			name := g.Action
			if g.Kind == "VaultKey" {
				name = g.String()
			}
			granted[name] = true
		}
		for action, reachable := range needed {
			if why := role.unused[action]; reachable && !granted[action] && why == "" {
				t.Errorf("%s can make calls that need %s, which %s does not allow", role.program, action, role.policy)
			} else if granted[action] && why != "" {
				t.Errorf("%s allows %s, although %s", role.policy, action, why)
			}
		}
		for action := range granted {
			if !needed[action] && role.implied[action] == "" {
				t.Errorf("%s allows %s, which no code of %s needs", role.policy, action, role.program)
			}
		}
		for action, why := range role.implied {
			if !granted[action] || needed[action] {
				t.Errorf("%s does not allow %s, or %s needs it; it is excused because: %s", role.policy, action, role.program, why)
			}
		}
		for action, why := range role.unused {
			if !needed[action] {
				t.Errorf("%s never needs %s, which is excused because: %s", role.program, action, why)
			}
		}
	}
}

// recorded is what the programs of all tests needed, by access key.
var recorded = struct {
	sync.Mutex
	by map[string]map[permissions.Grant]string // with the call that needed it
}{by: map[string]map[permissions.Grant]string{}}

func record(c call) {
	recorded.Lock()
	defer recorded.Unlock()
	if recorded.by[c.Who] == nil {
		recorded.by[c.Who] = map[permissions.Grant]string{}
	}
	for _, g := range permissions.Needed(c.Service, c.Name, c.Body) {
		recorded.by[c.Who][g] = c.Name
	}
}

// judge holds the recorded calls against the roles, both ways. Whether a role
// allows too much can be said after a run of all tests only.
func judge(whole bool) (problems []string) {
	content, err := os.ReadFile("../../../template.yaml")
	if err != nil {
		return []string{err.Error()}
	}
	tmpl, err := cloudformation.Parse(content)
	if err != nil {
		return []string{err.Error()}
	}
	recorded.Lock()
	defer recorded.Unlock()
	for _, role := range roles {
		granted, made := permissions.Granted(tmpl, role.policy), recorded.by[role.key]
		for need, call := range made {
			allowed := slices.ContainsFunc(granted, func(g permissions.Grant) bool { return g.Covers(need) })
			if bySealKey := need.Kind == "SealKey" && role.unused[need.Action] != ""; !allowed && !bySealKey {
				problems = append(problems, fmt.Sprintf("%s called %s, for which %s does not allow %s", role.program, call,
					role.policy, need))
			}
		}
		for _, g := range granted {
			used := slices.ContainsFunc(slices.Collect(maps.Keys(made)), g.Covers)
			if whole && !used && role.implied[g.String()] == "" {
				problems = append(problems, fmt.Sprintf("%s allows %s, which %s never needed in this run", role.policy, g,
					role.program))
			}
		}
	}
	slices.Sort(problems)
	return problems
}

// judged says what came of judge, and whether it is a failure.
func judged(whole bool) (failed bool) {
	problems := judge(whole)
	calls := 0
	for _, made := range recorded.by {
		calls += len(made)
	}
	if len(problems) == 0 {
		fmt.Printf("permissions: %d kinds of calls were made, all allowed; nothing else is: %v\n", calls, whole)
		return false
	}
	fmt.Printf("FAIL: permissions\n\t%s\n", strings.Join(problems, "\n\t"))
	return true
}
