package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/smithy-go"
)

// where names the stack for messages.
func (conf *configuration) where() string {
	text := fmt.Sprintf("the stack %s in %s", conf.stack.value, conf.aws.Region)
	if conf.profile.value != "" {
		text += fmt.Sprintf(" (profile %s)", conf.profile.value)
	}
	return text
}

// stackOutputs reads the outputs of the stack. The caller needs one permission for it:
// cloudformation:DescribeStacks on this stack.
func (conf *configuration) stackOutputs(ctx context.Context) (map[string]string, error) {
	answer, err := cloudformation.NewFromConfig(conf.aws).DescribeStacks(ctx,
		&cloudformation.DescribeStacksInput{StackName: aws.String(conf.stack.value)})
	if err != nil {
		return nil, conf.noStack(err)
	}
	if len(answer.Stacks) != 1 {
		return nil, exitf(notFound, "AWS has no answer about %s", conf.where())
	}
	stack := answer.Stacks[0]
	if err := conf.checkStatus(string(stack.StackStatus)); err != nil {
		return nil, err
	}
	outputs := map[string]string{}
	for _, o := range stack.Outputs {
		outputs[aws.ToString(o.OutputKey)] = aws.ToString(o.OutputValue)
	}
	return outputs, nil
}

// noStack explains why AWS does not describe the stack.
func (conf *configuration) noStack(err error) error {
	answer, ok := errors.AsType[smithy.APIError](err)
	switch {
	case ok && answer.ErrorCode() == "ValidationError": // the name is well-formed, so it can only be unknown
		return exitf(notFound, "%s does not exist: check the name, the region and the AWS account of your credentials "+
			"(`aws sts get-caller-identity` prints it)", conf.where())
	case ok && (answer.ErrorCode() == "AccessDenied" || answer.ErrorCode() == "AccessDeniedException"):
		return fmt.Errorf("your AWS identity may not describe %s: check the name and the region, and attach the policy of "+
			"the stack's output OperatorPolicyArn, or allow cloudformation:DescribeStacks on this stack", conf.where())
	}
	return conf.explain(fmt.Errorf("describing %s: %w", conf.where(), err))
}

// checkStatus refuses a stack that never was complete or is about to go. After a failed or
// during a running update the former installation works on, so its outputs are right.
func (conf *configuration) checkStatus(status string) error {
	switch {
	case status == "CREATE_IN_PROGRESS", status == "REVIEW_IN_PROGRESS", status == "ROLLBACK_IN_PROGRESS":
		return exitf(tryLater, "%s is not complete (%s): wait until the deployment has ended, and see the stack's events",
			conf.where(), status)
	case status == "CREATE_FAILED", strings.HasPrefix(status, "ROLLBACK_"):
		return fmt.Errorf("the deployment of %s failed (%s): the stack's events name the reason; delete the stack and "+
			"deploy again, see infra/runbooks/first-deploy.md", conf.where(), status)
	case strings.HasPrefix(status, "DELETE_"):
		return fmt.Errorf("%s is deleted or being deleted (%s): the table and the keys are kept, see "+
			"infra/runbooks/stack-deleted.md", conf.where(), status)
	}
	return nil
}

// incomplete explains outputs that a stack of this version has and this one lacks.
func (conf *configuration) incomplete(missing []string, all bool) error {
	if all {
		return fmt.Errorf("%s is not an installation of tokenturn: it has none of the outputs of template.yaml, such as %s",
			conf.where(), missing[0])
	}
	return fmt.Errorf("%s has no output %s: it was deployed from another version of template.yaml than this command; "+
		"deploy it again from the version of this command, or use the version of the command that belongs to it",
		conf.where(), strings.Join(missing, ", "))
}
