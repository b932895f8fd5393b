//go:build conformance

package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
)

type suppression struct {
	rule      string
	resources []string
	reason    string
}

// suppressions are what cdk-nag finds in the template, with the reason why it stays. A rule has the same name in all
// packs. infra/test/scanners_test.go asks most of the same questions without cdk-nag.
var suppressions = []suppression{
	{"APIG4", []string{"RouteCallback", "RouteConnected", "RouteHealth", "RouteInvitation", "RouteLogo",
		"RouteNotConnected", "RouteStart"}, "the pages are for people without an AWS identity: an invitation's secret " +
		"link, or a state with its cookie, lets them in"},
	{"IAM5", []string{"OperatorPolicy", "ReaderPolicy"}, "the * stands for the rest of a secret's name under the prefix " +
		"of this installation, or of the stack's own ARN"},
	{"IAMNoInlinePolicy", []string{"RotateRole", "ScheduleRole"}, "a right of one role alone, which lives and dies " +
		"with it"},
	{"DynamoDBInBackupPlan", []string{"Table"}, "point-in-time recovery goes back 35 days; older rows have refresh " +
		"tokens that were used since: infra/README.md, What is kept"},
	{"LambdaConcurrency", []string{"CallbackFunction", "RotateFunction"}, "ReservedConcurrency sets it for rotate, " +
		"which small accounts cannot; the API's throttle bounds callback"},
	{"LambdaDLQ", []string{"CallbackFunction"}, "only the API calls it, and waits for the answer"},
	{"LambdaInsideVPC", []string{"CallbackFunction", "RotateFunction"}, "they call Procore and public endpoints of AWS, " +
		"and nothing in a network of one's own"},
	{"SQSRedrivePolicy", []string{"DeadLetters", "LostSweeps"}, "they are the queues for what could not be processed"},
	{"LambdaTracing", []string{"CallbackFunction", "RotateFunction"}, "the parameter Tracing switches it on"},
	{"LambdaAsyncFailureDestination", []string{"CallbackFunctionEventInvokeConfig", "RotateFunctionEventInvokeConfig"},
		"rotate has a dead-letter queue, which is the same; nothing calls callback asynchronously"},
	{"LambdaEventSourceMappingDestination", []string{"RotateFunctionFollowUps"}, "Lambda has none for SQS; the queue " +
		"has a dead-letter queue"},
	{"W1030", []string{"stack"}, "a condition leaves MaximumWindowInMinutes out where it is 0"},
	{"W2509", []string{"stack"}, "SecretPrefix is part of the secrets' names, and no password"},
}

// TestCdkNagFindsWhatHasAReason runs cdk-nag's packs AwsSolutions, HIPAA Security, NIST 800-53 R5 and Serverless over
// the template as AWS would deploy it. Each finding has a suppression, and each suppression a finding.
func TestCdkNagFindsWhatHasAReason(t *testing.T) {
	t.Parallel()
	directory, err := filepath.Abs("../../../build/nag")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(directory); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(directory, os.DirFS("nag")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	template, err := cloudformation.Transform(ctx, "../../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	content, err := json.Marshal(template)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(directory, "template.json"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, arguments ...string) []byte {
		cmd := exec.CommandContext(ctx, name, arguments...)
		cmd.Dir = directory
		out, err := cmd.Output()
		if err != nil {
			if failed, ok := errors.AsType[*exec.ExitError](err); ok {
				out = append(out, failed.Stderr...)
			}
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return out
	}
	run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	var findings []struct{ Pack, Rule, Resource string }
	if err := json.Unmarshal(run("node", "nag.mjs", "template.json"), &findings); err != nil {
		t.Fatal(err)
	}

	found := map[string]bool{}
	for _, f := range findings {
		// Such as AwsSolutions-IAM5[Resource::...], of which the pack's name comes first and the place last.
		rule, _, _ := strings.Cut(f.Rule, "[")
		rule = rule[strings.LastIndex(rule, "-")+1:]
		explained := slices.ContainsFunc(suppressions, func(s suppression) bool {
			return s.rule == rule && slices.Contains(s.resources, f.Resource)
		})
		if !explained {
			t.Errorf("%s: %s finds fault with %s", f.Pack, f.Rule, f.Resource)
		}
		found[rule+" "+f.Resource] = true
	}
	for _, s := range suppressions {
		for _, resource := range s.resources {
			if !found[s.rule+" "+resource] {
				t.Errorf("%s finds no fault with %s, and yet there is a reason for it: %s", s.rule, resource, s.reason)
			}
		}
	}
	t.Logf("cdk-nag: %d findings, each with a reason", len(findings))
}
