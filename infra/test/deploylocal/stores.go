package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// makeTable: encryption is spelt otherwise than in the API, recovery and the
// lifetime of items have calls of their own.
func makeTable(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	recovery, ttl := take(properties, "PointInTimeRecoverySpecification"), take(properties, "TimeToLiveSpecification")
	if sse := object(properties["SSESpecification"]); sse != nil {
		properties["SSESpecification"] = map[string]any{"Enabled": sse["SSEEnabled"], "SSEType": sse["SSEType"],
			"KMSMasterKeyId": sse["KMSMasterKeyId"]}
	}
	in, err := decode[dynamodb.CreateTableInput](properties)
	if err != nil {
		return made{}, err
	}
	if in.TableName == nil {
		in.TableName = aws.String(s.name + "-" + name)
	}
	client := s.cloud.dynamodb
	out, err := client.CreateTable(ctx, in)
	if err != nil {
		return made{}, err
	}
	if object(recovery)["PointInTimeRecoveryEnabled"] == true {
		_, err := client.UpdateContinuousBackups(ctx, &dynamodb.UpdateContinuousBackupsInput{TableName: in.TableName,
			PointInTimeRecoverySpecification: &dynamodbtypes.PointInTimeRecoverySpecification{
				PointInTimeRecoveryEnabled: aws.Bool(true)}})
		if err != nil {
			return made{}, err
		}
	}
	if ttl := object(ttl); ttl != nil {
		_, err := client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: in.TableName,
			TimeToLiveSpecification: &dynamodbtypes.TimeToLiveSpecification{AttributeName: aws.String(
				fmt.Sprint(ttl["AttributeName"])), Enabled: aws.Bool(ttl["Enabled"] == true)}})
		if err != nil {
			return made{}, err
		}
	}
	there := out.TableDescription
	return made{ref: *in.TableName, attributes: map[string]string{"Arn": *there.TableArn}, kept: map[string]any{
		"AttributeDefinitions": there.AttributeDefinitions, "KeySchema": there.KeySchema,
		"GlobalSecondaryIndexes":    there.GlobalSecondaryIndexes,
		"DeletionProtectionEnabled": there.DeletionProtectionEnabled, "BillingMode": there.BillingModeSummary.BillingMode,
		"SSESpecification": map[string]any{"SSEEnabled": there.SSEDescription != nil, "SSEType": "KMS",
			"KMSMasterKeyId": there.SSEDescription.KMSMasterKeyArn},
		// Each was accepted by a call of its own.
		"PointInTimeRecoverySpecification": recovery, "TimeToLiveSpecification": ttl}}, nil
}

func makeKey(ctx context.Context, s *stack, _ string, properties map[string]any) (made, error) {
	rotates, window := take(properties, "EnableKeyRotation"), take(properties, "PendingWindowInDays")
	// used at deletion only
	if days, err := strconv.Atoi(fmt.Sprint(window)); window != nil && (err != nil || days < 7 || days > 30) {
		return made{}, fmt.Errorf("a key can wait 7 to 30 days for its deletion, not %v", window)
	}
	in := &kms.CreateKeyInput{Policy: aws.String(jsonOf(take(properties, "KeyPolicy"))),
		Description: aws.String(fmt.Sprint(take(properties, "Description")))}
	if err := nothingLeft(properties); err != nil {
		return made{}, err
	}
	out, err := s.cloud.kms.CreateKey(ctx, in)
	if err != nil {
		return made{}, err
	}
	if rotates == true {
		if _, err := s.cloud.kms.EnableKeyRotation(ctx,
			&kms.EnableKeyRotationInput{KeyId: out.KeyMetadata.KeyId}); err != nil {
			return made{}, err
		}
	}
	return made{ref: *out.KeyMetadata.KeyId, attributes: map[string]string{"Arn": *out.KeyMetadata.Arn}}, nil
}

func makeQueue(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	queueName := take(properties, "QueueName")
	if queueName == nil {
		queueName = s.name + "-" + name
	}
	attributes := map[string]string{}
	for property, value := range properties {
		if !slices.Contains(sqstypes.QueueAttributeName("").Values(), sqstypes.QueueAttributeName(property)) {
			return made{}, fmt.Errorf("a queue has no attribute %s", property)
		}
		attributes[property] = fmt.Sprint(value)
		if object(value) != nil {
			attributes[property] = jsonOf(value)
		}
	}
	out, err := s.cloud.sqs.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(fmt.Sprint(queueName)),
		Attributes: attributes})
	if err != nil {
		return made{}, err
	}
	there, err := s.cloud.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: out.QueueUrl,
		AttributeNames: []sqstypes.QueueAttributeName{"All"}})
	if err != nil {
		return made{}, err
	}
	kept := map[string]any{"QueueName": queueName}
	for name, value := range there.Attributes {
		kept[name] = value
	}
	return made{ref: *out.QueueUrl, attributes: map[string]string{"Arn": there.Attributes["QueueArn"],
		"QueueName": fmt.Sprint(queueName)}, kept: kept}, nil
}

func makeQueuePolicy(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	queues, policy := list(take(properties, "Queues")), jsonOf(take(properties, "PolicyDocument"))
	for _, queue := range queues {
		_, err := s.cloud.sqs.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: aws.String(fmt.Sprint(queue)),
			Attributes: map[string]string{"Policy": policy}})
		if err != nil {
			return made{}, err
		}
	}
	return made{ref: name}, nothingLeft(properties)
}

func makeTopic(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	attributes := map[string]string{}
	for property, value := range properties {
		attributes[property] = fmt.Sprint(value)
	}
	out, err := s.cloud.sns.CreateTopic(ctx, &sns.CreateTopicInput{Name: aws.String(s.name + "-" + name),
		Attributes: attributes})
	if err != nil {
		return made{}, err
	}
	there, err := s.cloud.sns.GetTopicAttributes(ctx, &sns.GetTopicAttributesInput{TopicArn: out.TopicArn})
	if err != nil {
		return made{}, err
	}
	return made{ref: *out.TopicArn, kept: there.Attributes}, nil
}

func makeTopicPolicy(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	topics, policy := list(take(properties, "Topics")), jsonOf(take(properties, "PolicyDocument"))
	for _, topic := range topics {
		_, err := s.cloud.sns.SetTopicAttributes(ctx, &sns.SetTopicAttributesInput{TopicArn: aws.String(fmt.Sprint(topic)),
			AttributeName: aws.String("Policy"), AttributeValue: &policy})
		if err != nil {
			return made{}, err
		}
	}
	return made{ref: name}, nothingLeft(properties)
}

func makeLogGroup(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	retention := take(properties, "RetentionInDays")
	in, err := decode[cloudwatchlogs.CreateLogGroupInput](properties)
	if err != nil {
		return made{}, err
	}
	if in.LogGroupName == nil {
		in.LogGroupName = aws.String(s.name + "-" + name)
	}
	if _, err := s.cloud.logs.CreateLogGroup(ctx, in); err != nil {
		return made{}, err
	}
	if retention != nil {
		keep, err := decode[cloudwatchlogs.PutRetentionPolicyInput](map[string]any{"LogGroupName": in.LogGroupName,
			"RetentionInDays": retention})
		if err != nil {
			return made{}, err
		}
		if _, err := s.cloud.logs.PutRetentionPolicy(ctx, keep); err != nil {
			return made{}, err
		}
	}
	there, err := s.cloud.logs.DescribeLogGroups(ctx,
		&cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: in.LogGroupName})
	if err != nil {
		return made{}, err
	}
	arn := "arn:aws:logs:" + region + ":" + account + ":log-group:" + *in.LogGroupName + ":*"
	return made{ref: *in.LogGroupName, attributes: map[string]string{"Arn": arn}, kept: there.LogGroups[0]}, nil
}
