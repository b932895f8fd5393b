// Command deploylocal deploys template.yaml on this machine and uses it. SAM's own
// translator turns it into CloudFormation, and calls to moto's AWS server create each
// resource. The functions run as in Lambda, with the environment that the template
// gives them. A person consents to a connection, which is rotated ten times. Then the
// commands of every runbook are run, each in the situation that it is for. It needs
// Go, and Python 3 with moto and aws-sam-translator.
//
// It fails if it does not know a resource's type or property, if a resource cannot be
// created, or if the functions do not work. It ends with a list of what such a
// deployment cannot show.
//
// It creates the resources itself because CreateStack of moto 5.2.1 cannot:
//
//   - It supports 11 of the template's 21 types, which have 20 of the 64 resources, and skips the
//     others with only a warning in its log: CloudWatch::Alarm (26 resources), four types of
//     ApiGatewayV2 (9), SQS::QueuePolicy (3), IAM::RolePolicy and Lambda::EventInvokeConfig (2 each),
//     SNS::TopicPolicy and Scheduler::Schedule (1 each). It then fails at an Fn::GetAtt of Api.
//   - In the other types it silently drops 12 settings that moto's API calls keep: encryption,
//     recovery and TTL of the table; KmsKeyId of 3 log groups; tags, architecture and tracing of
//     2 functions. DescribeKey then fails for both keys, and a number in Environment stays a number.
//   - AWS::NoValue in a list becomes null (3 policies), and Arn of a log group lacks its ":*" (3 uses).
//     The other functions in template.yaml, its conditions and its outputs are right.
//   - A Ref can create a resource before its DependsOn. Unknown properties and functions are
//     accepted in silence, and a circle is an internal error.
//
// With CreateStack, at most 640 lines would go: the makers and most of deploy.go. Other tests need
// infra/test/cloudformation in any case. A draft that fills the gaps has 230 lines of Python, on
// moto's internals. About 200 new lines of Go would call CreateStack and read the settings back, so
// the total would shrink by only 210. Property lists written by hand would replace the types of the
// SDK, which refuse unknown properties today.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
)

func main() {
	root := flag.String("root", ".", "directory of this repository")
	stackName := flag.String("stack", "tokenturn-local", "name of the stack")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *root, *stackName, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "deploylocal:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, stackName string, out io.Writer) (err error) {
	started := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(out, "%5.1f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	buildDir, err := os.MkdirTemp("", "tokenturn-deploylocal-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(buildDir)) }()

	template, err := cloudformation.Transform(ctx, root+"/template.yaml")
	if err != nil {
		return err
	}
	say("translated template.yaml: %d resources", len(object(template["Resources"])))
	c, stop, err := startCloud(ctx, root, buildDir)
	if err != nil {
		return err
	}
	defer stop()
	say("started moto at %s", c.url)
	s, err := newStack(stackName, template, c)
	if err != nil {
		return err
	}
	if err := s.deploy(ctx); err != nil {
		return err
	}
	say("made %s", s.counts())
	if err := try(ctx, s, say); err != nil {
		return err
	}
	say("done. What this has not shown:")
	for _, what := range slices.Concat(s.dropped, notShown) {
		fmt.Fprintf(out, "         - %s\n", what)
	}
	return nil
}

// notShown is what no deployment to moto can show. What moto did not keep is
// found out while deploying.
var notShown = []string{
	"permissions: moto denies nothing; the conformance run compares roles with calls instead",
	"key policies, encryption contexts and resource policies: nobody enforces them here",
	"EventBridge Scheduler, the event source mapping and API Gateway: this command reads what was created and plays " +
		"their parts",
	"throttles and the access log of the API, dead-letter queues, redrives, alarms, the dashboard and traces: " +
		"created only",
	"TTL, point-in-time recovery and backups, deletion protection, rotation of keys: switched on only",
	"arm64 and provided.al2023: the functions run as built for this machine, without Lambda's limits of memory",
	"quotas, latencies, eventual consistency and prices of AWS; updating, rolling back, deleting and importing the stack",
	"Procore: a stand-in answers in its place",
}
