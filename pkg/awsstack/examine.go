package awsstack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdynamodb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	awssecretsmanager "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	awssns "github.com/aws/aws-sdk-go-v2/service/sns"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// clients are the AWS clients that the checks need besides the adapters.
type clients struct {
	dynamodb *awsdynamodb.Client
	secrets  *awssecretsmanager.Client
	sqs      *awssqs.Client
	sns      *awssns.Client
}

// Checks returns the checks that only an AWS installation has. They write nothing.
func (s *Stack) Checks() []doctor.Check {
	return []doctor.Check{s.examineTable, s.examinePermissions, s.examineQueue, s.examineTopic, s.examineProtections}
}

const deployAgain = "deploy the template again with: make deploy"

// examineTable compares the table with the one in template.yaml.
func (s *Stack) examineTable(ctx context.Context) []doctor.Finding {
	finding := func(level doctor.Level, detail, remedy string) doctor.Finding {
		return doctor.Finding{Check: "table", Subject: s.Settings.Table, Level: level, Detail: detail, Remedy: remedy}
	}
	out, err := s.clients.dynamodb.DescribeTable(ctx, &awsdynamodb.DescribeTableInput{TableName: &s.Settings.Table})
	if _, missing := errors.AsType[*types.ResourceNotFoundException](err); missing {
		return []doctor.Finding{finding(doctor.Problem, "this table does not exist in this account and region",
			"correct TOKENTURN_TABLE, AWS_REGION or the account, or deploy the template")}
	}
	if denied(err) {
		return []doctor.Finding{finding(doctor.Warning, "this role may not describe the table",
			"allow dynamodb:DescribeTable, DescribeTimeToLive and DescribeContinuousBackups to this role")}
	}
	if err != nil {
		return []doctor.Finding{finding(doctor.Problem, err.Error(), "check that this machine can reach DynamoDB")}
	}
	var findings []doctor.Finding
	if got := keysOf(out.Table.KeySchema); got != "pk sk" {
		findings = append(findings, finding(doctor.Problem, "its keys are not pk and sk", deployAgain))
	}
	due := slices.IndexFunc(out.Table.GlobalSecondaryIndexes, func(i types.GlobalSecondaryIndexDescription) bool {
		return aws.ToString(i.IndexName) == "due" && keysOf(i.KeySchema) == "due_bucket due_at" &&
			i.IndexStatus == types.IndexStatusActive
	})
	if due < 0 {
		findings = append(findings, finding(doctor.Problem,
			"it has no active index due with the keys due_bucket and due_at, so sweeps find nothing due", deployAgain))
	}
	if ttl, err := s.clients.dynamodb.DescribeTimeToLive(ctx,
		&awsdynamodb.DescribeTimeToLiveInput{TableName: &s.Settings.Table}); err == nil &&
		(ttl.TimeToLiveDescription == nil || ttl.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusEnabled) {
		findings = append(findings, finding(doctor.Warning, "old rows are not deleted: time to live is off", deployAgain))
	}
	if backup, err := s.clients.dynamodb.DescribeContinuousBackups(ctx,
		&awsdynamodb.DescribeContinuousBackupsInput{TableName: &s.Settings.Table}); err == nil && !pointInTime(backup) {
		findings = append(findings, finding(doctor.Warning, "it cannot be restored: point-in-time recovery is off",
			deployAgain))
	}
	if len(findings) == 0 {
		findings = append(findings, finding(doctor.OK,
			"keys, index, time to live and point-in-time recovery are as in the template", ""))
	}
	return findings
}

func keysOf(schema []types.KeySchemaElement) string {
	var names []string
	for _, k := range schema {
		names = append(names, aws.ToString(k.AttributeName))
	}
	return strings.Join(names, " ")
}

func pointInTime(out *awsdynamodb.DescribeContinuousBackupsOutput) bool {
	d := out.ContinuousBackupsDescription
	return d != nil && d.PointInTimeRecoveryDescription != nil &&
		d.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus == types.PointInTimeRecoveryStatusEnabled
}

// nowhere is a name that no row and no connection can have, so a call that names it
// changes nothing.
const nowhere = "doctor/Nowhere"

// examinePermissions makes each call of the operator CLI in a form that cannot take
// effect. IAM decides before a service reads the request. Creating a secret has no
// such form, so it is not tried.
func (s *Stack) examinePermissions(ctx context.Context) []doctor.Finding {
	key := map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: nowhere},
		"sk": &types.AttributeValueMemberS{Value: nowhere}}
	there, pk := aws.String("attribute_exists(#pk)"), map[string]string{"#pk": "pk"}
	table, db := &s.Settings.Table, s.clients.dynamodb
	secret := aws.String(s.Settings.SecretPrefix + "/connection/" + nowhere)
	version, secrets := aws.String("doctor-checks-whether-this-would-be-allowed"), s.clients.secrets
	tries := []struct {
		action string
		call   func() error
	}{
		{"dynamodb:GetItem", func() error {
			_, err := db.GetItem(ctx, &awsdynamodb.GetItemInput{TableName: table, Key: key})
			return err
		}},
		{"dynamodb:PutItem", func() error {
			_, err := db.PutItem(ctx, &awsdynamodb.PutItemInput{TableName: table, Item: key,
				ConditionExpression: there, ExpressionAttributeNames: pk})
			return err
		}},
		{"dynamodb:UpdateItem", func() error {
			_, err := db.UpdateItem(ctx, &awsdynamodb.UpdateItemInput{TableName: table, Key: key, ConditionExpression: there,
				UpdateExpression:         aws.String("REMOVE #nothing"),
				ExpressionAttributeNames: map[string]string{"#pk": "pk", "#nothing": "nothing"}})
			return err
		}},
		{"dynamodb:DeleteItem", func() error {
			_, err := db.DeleteItem(ctx, &awsdynamodb.DeleteItemInput{TableName: table, Key: key,
				ConditionExpression: there, ExpressionAttributeNames: pk})
			return err
		}},
		{"dynamodb:Query", func() error {
			_, err := db.Query(ctx, &awsdynamodb.QueryInput{TableName: table, KeyConditionExpression: aws.String("#pk = :pk"),
				ExpressionAttributeNames: pk, ExpressionAttributeValues: map[string]types.AttributeValue{":pk": key["pk"]}})
			return err
		}},
		{"dynamodb:Query on the index due", func() error {
			_, err := db.Query(ctx, &awsdynamodb.QueryInput{TableName: table, IndexName: aws.String("due"),
				KeyConditionExpression:    aws.String("#bucket = :bucket"),
				ExpressionAttributeNames:  map[string]string{"#bucket": "due_bucket"},
				ExpressionAttributeValues: map[string]types.AttributeValue{":bucket": key["pk"]}})
			return err
		}},
		{"dynamodb:BatchGetItem", func() error {
			_, err := db.BatchGetItem(ctx, &awsdynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
				*table: {Keys: []map[string]types.AttributeValue{key}}}})
			return err
		}},
		{"secretsmanager:GetSecretValue", func() error {
			_, err := secrets.GetSecretValue(ctx, &awssecretsmanager.GetSecretValueInput{SecretId: secret})
			return err
		}},
		{"secretsmanager:PutSecretValue", func() error {
			_, err := secrets.PutSecretValue(ctx, &awssecretsmanager.PutSecretValueInput{SecretId: secret,
				SecretString: aws.String("nothing"), ClientRequestToken: version})
			return err
		}},
		{"secretsmanager:ListSecretVersionIds", func() error {
			_, err := secrets.ListSecretVersionIds(ctx, &awssecretsmanager.ListSecretVersionIdsInput{SecretId: secret})
			return err
		}},
		{"secretsmanager:UpdateSecretVersionStage", func() error {
			_, err := secrets.UpdateSecretVersionStage(ctx, &awssecretsmanager.UpdateSecretVersionStageInput{SecretId: secret,
				VersionStage: aws.String("AWSCURRENT"), MoveToVersionId: version})
			return err
		}},
		{"secretsmanager:DeleteSecret", func() error {
			_, err := secrets.DeleteSecret(ctx, &awssecretsmanager.DeleteSecretInput{SecretId: secret,
				RecoveryWindowInDays: aws.Int64(30)})
			return err
		}},
		{"secretsmanager:RestoreSecret", func() error {
			_, err := secrets.RestoreSecret(ctx, &awssecretsmanager.RestoreSecretInput{SecretId: secret})
			return err
		}},
	}
	var refused []string
	for _, try := range tries {
		if denied(try.call()) {
			refused = append(refused, try.action)
		}
	}
	if len(refused) > 0 {
		return []doctor.Finding{{Check: "permissions", Level: doctor.Problem, Detail: "this role is not allowed: " +
			strings.Join(refused, ", "),
			Remedy: "give this role the permissions that infra/README.md lists for the operator; commands that need them fail"}}
	}
	return []doctor.Finding{{Check: "permissions", Level: doctor.OK, Detail: fmt.Sprintf("this role is allowed %d "+
		"actions on table and secrets (the permissions of the functions' roles are not checked)", len(tries))}}
}

// backlog is the largest number of messages that wait in a queue with a working reader.
const backlog = 100

func (s *Stack) examineQueue(ctx context.Context) []doctor.Finding {
	finding := func(level doctor.Level, detail, remedy string) []doctor.Finding {
		return []doctor.Finding{{Check: "queue", Level: level, Detail: detail, Remedy: remedy}}
	}
	if s.Settings.QueueURL == "" {
		return finding(doctor.Warning, "there is no queue, so follow-ups wait for the next sweep",
			"set TOKENTURN_QUEUE_URL to the stack's output QueueUrl")
	}
	out, err := s.clients.sqs.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{QueueUrl: &s.Settings.QueueURL,
		AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameApproximateNumberOfMessages}})
	if denied(err) {
		return finding(doctor.Warning, "this role may not read its attributes", "allow sqs:GetQueueAttributes to this role")
	}
	if err != nil {
		return finding(doctor.Problem, err.Error(), "correct TOKENTURN_QUEUE_URL")
	}
	waiting, _ := strconv.Atoi(out.Attributes[string(sqstypes.QueueAttributeNameApproximateNumberOfMessages)])
	if waiting > backlog {
		return finding(doctor.Problem, fmt.Sprintf("%d messages wait in it", waiting),
			"check that the rotate function reads the queue and does not fail")
	}
	return finding(doctor.OK, fmt.Sprintf("%d messages wait in it", waiting), "")
}

func (s *Stack) examineTopic(ctx context.Context) []doctor.Finding {
	finding := func(level doctor.Level, detail, remedy string) []doctor.Finding {
		return []doctor.Finding{{Check: "topic", Level: level, Detail: detail, Remedy: remedy}}
	}
	if s.Settings.TopicARN == "" {
		return finding(doctor.Warning, "the topic is not known here, so notices of this command are only logged",
			"set TOKENTURN_TOPIC_ARN to the stack's output TopicArn")
	}
	out, err := s.clients.sns.GetTopicAttributes(ctx, &awssns.GetTopicAttributesInput{TopicArn: &s.Settings.TopicARN})
	if denied(err) {
		return finding(doctor.Warning, "this role may not read its attributes", "allow sns:GetTopicAttributes to this role")
	}
	if err != nil {
		return finding(doctor.Problem, err.Error(), "correct TOKENTURN_TOPIC_ARN")
	}
	if out.Attributes["SubscriptionsConfirmed"] == "0" {
		return finding(doctor.Warning, "nobody receives notices: the topic has no confirmed subscription",
			"subscribe a person to "+s.Settings.TopicARN)
	}
	return finding(doctor.OK, "confirmed subscriptions: "+out.Attributes["SubscriptionsConfirmed"], "")
}

// examineProtections finds secrets without a resource policy. Any role with the IAM
// permission can write those.
func (s *Stack) examineProtections(ctx context.Context) []doctor.Finding {
	finding := func(level doctor.Level, detail, remedy string) []doctor.Finding {
		return []doctor.Finding{{Check: "policies", Level: level, Detail: detail, Remedy: remedy}}
	}
	records, err := s.Table.List(ctx)
	if err != nil {
		return nil // the check of the schedule reports this error
	}
	var mu sync.Mutex
	var open []string
	secrets := 0
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(s.Settings.Concurrency)
	for _, r := range records {
		group.Go(func() error {
			protected, err := s.Protections.Protected(ctx, r.Connection)
			if errors.Is(err, rotation.ErrNoSecret) || errors.Is(err, rotation.ErrSecretDeleted) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if secrets++; !protected {
				open = append(open, r.Connection.String())
			}
			return err
		})
	}
	switch err := group.Wait(); {
	case denied(err):
		return finding(doctor.Warning, "this role may not read the policies of secrets",
			"allow secretsmanager:GetResourcePolicy to this role")
	case err != nil:
		return finding(doctor.Later, err.Error(), "check that this machine can reach Secrets Manager")
	case len(open) > 0:
		return finding(doctor.Warning, fmt.Sprintf("%d of %d secrets have no resource policy, such as the secret of %s",
			len(open), secrets, slices.Min(open)),
			"attach policies with: tokenturn --store aws connection protect --all; infra/README.md lists the roles to name")
	}
	return finding(doctor.OK, fmt.Sprintf("%d secrets, each with a resource policy", secrets), "")
}

// denied reports whether IAM refused a call.
func denied(err error) bool {
	e, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains([]string{"AccessDeniedException", "AccessDenied", "AuthorizationError",
		"AuthorizationErrorException"}, e.ErrorCode())
}
