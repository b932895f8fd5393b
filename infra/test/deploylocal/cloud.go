package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/apigatewayv2"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

const (
	region  = "us-east-1"
	account = "123456789012" // moto's
)

// makers knows the types of resources that the template has.
var makers = map[string]maker{
	"AWS::ApiGatewayV2::Api":          makeAPI,
	"AWS::ApiGatewayV2::Integration":  makeIntegration,
	"AWS::ApiGatewayV2::Route":        makeRoute,
	"AWS::ApiGatewayV2::Stage":        makeStage,
	"AWS::CloudWatch::Alarm":          makeAlarm,
	"AWS::CloudWatch::Dashboard":      makeDashboard,
	"AWS::DynamoDB::Table":            makeTable,
	"AWS::IAM::ManagedPolicy":         makeManagedPolicy,
	"AWS::IAM::Role":                  makeRole,
	"AWS::IAM::RolePolicy":            makeRolePolicy,
	"AWS::KMS::Key":                   makeKey,
	"AWS::Lambda::EventInvokeConfig":  makeInvokeConfig,
	"AWS::Lambda::EventSourceMapping": makeMapping,
	"AWS::Lambda::Function":           makeFunction,
	"AWS::Lambda::Permission":         makePermission,
	"AWS::Logs::LogGroup":             makeLogGroup,
	"AWS::SNS::Topic":                 makeTopic,
	"AWS::SNS::TopicPolicy":           makeTopicPolicy,
	"AWS::SQS::Queue":                 makeQueue,
	"AWS::SQS::QueuePolicy":           makeQueuePolicy,
	"AWS::Scheduler::Schedule":        makeSchedule,
}

// cloud is a running moto.
type cloud struct {
	url      string
	root     string // of this repository
	buildDir string // where programs are built
	python   string // that has moto

	gateway    *apigatewayv2.Client
	cloudwatch *cloudwatch.Client
	dynamodb   *dynamodb.Client
	iam        *iam.Client
	kms        *kms.Client
	lambda     *lambda.Client
	logs       *cloudwatchlogs.Client
	scheduler  *scheduler.Client
	sns        *sns.Client
	sqs        *sqs.Client
	stacks     *cloudformation.Client
}

// startCloud starts moto until stop is called, or this process ends.
func startCloud(ctx context.Context, root, buildDir string) (c *cloud, stop func(), err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "infra/test/peers/aws/start"), "0", "--exit-on-stdin-eof")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	var problems strings.Builder
	cmd.Stderr = &problems
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	url, listening := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil && err != io.EOF || !listening {
		stop()
		return nil, nil, fmt.Errorf("moto did not start: %s", problems.String())
	}
	cfg := aws.Config{Region: region, BaseEndpoint: &url,
		Credentials: credentials.NewStaticCredentialsProvider("AKIADEPLOYER", "test", "")}
	return &cloud{url, root, buildDir, pythonOf(root), apigatewayv2.NewFromConfig(cfg), cloudwatch.NewFromConfig(cfg),
		dynamodb.NewFromConfig(cfg), iam.NewFromConfig(cfg),
		kms.NewFromConfig(cfg), lambda.NewFromConfig(cfg), cloudwatchlogs.NewFromConfig(cfg), scheduler.NewFromConfig(cfg),
		sns.NewFromConfig(cfg), sqs.NewFromConfig(cfg), cloudformation.NewFromConfig(cfg)}, stop, nil
}

// pythonOf is the Python that infra/test/peers/aws/start has found or made.
func pythonOf(root string) string {
	if own := filepath.Join(root, "build/venv/bin/python"); exec.Command("python3", "-c", "import moto").Run() != nil {
		return own
	}
	path, _ := exec.LookPath("python3")
	return path
}

// program builds a function, or the operator's command, for this machine.
func (c *cloud) program(name string) (string, error) {
	source := "./functions/" + name
	if name == "tokenturn" {
		source = "./cmd/" + name
	}
	path := filepath.Join(c.buildDir, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.Command("go", "build", "-tags", "lambda.norpc", "-o", path, source)
	cmd.Dir = c.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", source, err, out)
	}
	return path, nil
}
