package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	"github.com/aws/smithy-go"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
)

func makeRole(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	trust, policies := take(properties, "AssumeRolePolicyDocument"), list(take(properties, "Policies"))
	in, err := decode[iam.CreateRoleInput](properties)
	if err != nil {
		return made{}, err
	}
	in.RoleName, in.AssumeRolePolicyDocument = aws.String(s.name+"-"+name), aws.String(jsonOf(trust))
	out, err := s.cloud.iam.CreateRole(ctx, in)
	if err != nil {
		return made{}, err
	}
	for _, policy := range policies {
		_, err := s.cloud.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: in.RoleName,
			PolicyName:     aws.String(fmt.Sprint(object(policy)["PolicyName"])),
			PolicyDocument: aws.String(jsonOf(object(policy)["PolicyDocument"]))})
		if err != nil {
			return made{}, err
		}
	}
	return made{ref: *in.RoleName, attributes: map[string]string{"Arn": *out.Role.Arn}}, nil
}

func makeRolePolicy(ctx context.Context, s *stack, _ string, properties map[string]any) (made, error) {
	document := jsonOf(take(properties, "PolicyDocument"))
	in, err := decode[iam.PutRolePolicyInput](properties)
	if err != nil {
		return made{}, err
	}
	in.PolicyDocument = &document
	_, err = s.cloud.iam.PutRolePolicy(ctx, in)
	return made{ref: *in.PolicyName}, err
}

func makeManagedPolicy(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	document := jsonOf(take(properties, "PolicyDocument"))
	in, err := decode[iam.CreatePolicyInput](properties)
	if err != nil {
		return made{}, err
	}
	in.PolicyName, in.PolicyDocument = aws.String(s.name+"-"+name), &document
	out, err := s.cloud.iam.CreatePolicy(ctx, in)
	if err != nil {
		return made{}, err
	}
	return made{ref: *out.Policy.Arn}, nil
}

// makeFunction uploads the program that was built for this machine.
func makeFunction(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	apart := map[string]any{} // what is given in other forms, or by other calls
	for _, property := range []string{"Code", "Tags", "ReservedConcurrentExecutions", "RecursiveLoop"} {
		apart[property] = take(properties, property)
	}
	tags := map[string]string{}
	for _, tag := range list(apart["Tags"]) {
		tags[fmt.Sprint(object(tag)["Key"])] = fmt.Sprint(object(tag)["Value"])
	}
	variables := object(object(properties["Environment"])["Variables"])
	for variable, value := range variables { // CloudFormation makes texts of numbers
		variables[variable] = fmt.Sprint(value)
	}
	in, err := decode[lambda.CreateFunctionInput](properties)
	if err != nil {
		return made{}, err
	}
	program, err := s.cloud.program(path.Base(fmt.Sprint(object(apart["Code"])["S3Key"])))
	if err != nil {
		return made{}, err
	}
	archive, err := zipped(program)
	if err != nil {
		return made{}, err
	}
	in.FunctionName, in.Code, in.Tags = aws.String(s.name+"-"+name), &lambdatypes.FunctionCode{ZipFile: archive}, tags
	s.programs[*in.FunctionName] = program
	out, err := s.cloud.lambda.CreateFunction(ctx, in)
	if err != nil {
		return made{}, err
	}
	if reserved := apart["ReservedConcurrentExecutions"]; reserved != nil {
		reserve, err := decode[lambda.PutFunctionConcurrencyInput](map[string]any{"FunctionName": in.FunctionName,
			"ReservedConcurrentExecutions": reserved})
		if err != nil {
			return made{}, err
		}
		if _, err := s.cloud.lambda.PutFunctionConcurrency(ctx, reserve); err != nil {
			return made{}, err
		}
	}
	if recursion := apart["RecursiveLoop"]; recursion != nil {
		_, err := s.cloud.lambda.PutFunctionRecursionConfig(ctx,
			&lambda.PutFunctionRecursionConfigInput{FunctionName: in.FunctionName,
				RecursiveLoop: lambdatypes.RecursiveLoop(fmt.Sprint(recursion))})
		if !s.lacks("PutFunctionRecursionConfig", err) && err != nil {
			return made{}, err
		}
	}
	there, err := s.cloud.lambda.GetFunctionConfiguration(ctx,
		&lambda.GetFunctionConfigurationInput{FunctionName: in.FunctionName})
	if err != nil {
		return made{}, err
	}
	kept, err := cloudformation.FromJSON([]byte(jsonOf(there)))
	maps.Copy(kept, apart)
	return made{ref: *in.FunctionName, attributes: map[string]string{"Arn": *out.FunctionArn}, kept: kept}, err
}

// lacks notes a call that the cloud does not know.
func (s *stack) lacks(call string, err error) bool {
	if err == nil {
		return false
	}
	e, isAPI := errors.AsType[smithy.APIError](err)
	if isAPI && e.ErrorCode() != "NotImplemented" && e.ErrorCode() != "UnknownError" && e.ErrorCode() != "404" {
		return false
	}
	if what := "moto does not know the call " + call; !slices.Contains(s.dropped, what) {
		s.dropped = append(s.dropped, what)
	}
	return true
}

func zipped(program string) ([]byte, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	file, err := w.Create("bootstrap")
	if err == nil {
		_, err = file.Write(content)
	}
	return archive.Bytes(), errors.Join(err, w.Close())
}

func makeInvokeConfig(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	in, err := decode[lambda.PutFunctionEventInvokeConfigInput](properties)
	if err != nil {
		return made{}, err
	}
	out, err := s.cloud.lambda.PutFunctionEventInvokeConfig(ctx, in)
	if err != nil {
		return made{}, err
	}
	return made{ref: name, kept: map[string]any{"DestinationConfig": properties["DestinationConfig"],
		"FunctionName": in.FunctionName, "Qualifier": in.Qualifier,
		"MaximumRetryAttempts": out.MaximumRetryAttempts, "MaximumEventAgeInSeconds": out.MaximumEventAgeInSeconds}}, nil
}

// makeMapping turns the mapping off once it is made: moto would invoke the
// function in Docker. This command delivers the messages instead.
func makeMapping(ctx context.Context, s *stack, _ string, properties map[string]any) (made, error) {
	in, err := decode[lambda.CreateEventSourceMappingInput](properties)
	if err != nil {
		return made{}, err
	}
	out, err := s.cloud.lambda.CreateEventSourceMapping(ctx, in)
	if err != nil {
		return made{}, err
	}
	_, err = s.cloud.lambda.UpdateEventSourceMapping(ctx, &lambda.UpdateEventSourceMappingInput{UUID: out.UUID,
		Enabled: aws.Bool(false)})
	return made{ref: *out.UUID, kept: map[string]any{"FunctionName": in.FunctionName, "BatchSize": out.BatchSize,
		"EventSourceArn":        out.EventSourceArn,
		"FunctionResponseTypes": out.FunctionResponseTypes, "ScalingConfig": out.ScalingConfig}}, err
}

func makePermission(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	in, err := decode[lambda.AddPermissionInput](properties)
	if err != nil {
		return made{}, err
	}
	in.StatementId = &name
	_, err = s.cloud.lambda.AddPermission(ctx, in)
	return made{ref: name}, err
}

func makeSchedule(ctx context.Context, s *stack, _ string, properties map[string]any) (made, error) {
	in, err := decode[scheduler.CreateScheduleInput](properties)
	if err != nil {
		return made{}, err
	}
	if _, err := s.cloud.scheduler.CreateSchedule(ctx, in); err != nil {
		return made{}, err
	}
	there, err := s.cloud.scheduler.GetSchedule(ctx, &scheduler.GetScheduleInput{Name: in.Name})
	return made{ref: *in.Name, kept: there}, err
}
