//go:build conformance

package fsck_test

import (
	"crypto/rand"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	sdk "github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/dynamo"
	"github.com/tokenturn/tokenturn/pkg/fsck"
	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/kms"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// In the stores of AWS, fsck finds the damage and nothing else.
func TestStoresOfAWS(t *testing.T) {
	config := awstest.Server(t, http.DefaultTransport)
	p := newParts()
	p.ledger = dynamo.New(dynamodb.NewFromConfig(config), table(t, dynamodb.NewFromConfig(config)))
	naming := secretsmanager.Naming{Prefix: "test-" + rand.Text(), Stack: settings.Stack}
	p.secrets = secretsmanager.NewSecretStore(sdk.NewFromConfig(config), naming)
	keys := awskms.NewFromConfig(config)
	made, err := keys.CreateKey(t.Context(), &awskms.CreateKeyInput{})
	must(t, err)
	p.sealer = kms.New(keys, *made.KeyMetadata.Arn, settings.Stack)
	p.live(t)
	report, err := fsck.Check(t.Context(), p.config())
	if err != nil || report.Connections != len(all) || len(report.Findings)+len(report.NotMade) > 0 {
		t.Errorf("%+v, %v", report, err)
	}

	shown, err := p.secrets.Current(t.Context(), acme)
	must(t, err)
	value := token.NewSecret("hello")
	must(t, p.secrets.Put(t.Context(), acme, token.VersionID(value), value))
	must(t, p.secrets.Promote(t.Context(), acme, token.VersionID(value), shown.ID))
	report, err = fsck.Check(t.Context(), p.config(), acme)
	if err != nil || len(report.Findings) != 1 || report.Findings[0].Kind != fsck.ValueNotDocument {
		t.Errorf("%+v, %v", report, err)
	}
}

// table makes a table as the template does and returns its name.
func table(t *testing.T, client *dynamodb.Client) string {
	t.Helper()
	name := "test-" + rand.Text()
	attribute := func(name string, kind types.ScalarAttributeType) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: aws.String(name), AttributeType: kind}
	}
	keys := func(hash, sort string) []types.KeySchemaElement {
		return []types.KeySchemaElement{{AttributeName: aws.String(hash), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(sort), KeyType: types.KeyTypeRange}}
	}
	_, err := client.CreateTable(t.Context(), &dynamodb.CreateTableInput{TableName: &name,
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{attribute("pk", types.ScalarAttributeTypeS),
			attribute("sk", types.ScalarAttributeTypeS), attribute("due_bucket", types.ScalarAttributeTypeS),
			attribute("due_at", types.ScalarAttributeTypeN)},
		KeySchema: keys("pk", "sk"),
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{IndexName: aws.String("due"),
			KeySchema:  keys("due_bucket", "due_at"),
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly}}}})
	if _, there := client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &name}); there != nil {
		t.Fatalf("making table %s: %v", name, err)
	}
	return name
}
