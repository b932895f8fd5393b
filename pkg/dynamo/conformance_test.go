//go:build conformance

package dynamo_test

import (
	"crypto/rand"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tokenturn/tokenturn/pkg/dynamo"
	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/invitations/invitationstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

func TestLedgerKeepsTheContract(t *testing.T) {
	rotationtest.TestLedger(t, func(t *testing.T) rotation.Ledger { return newTable(t, http.DefaultTransport) })
}

func TestLedgerKeepsTheContractWhenRequestsAreRepeated(t *testing.T) {
	rotationtest.TestLedgerRepeats(t, func(t *testing.T, transport http.RoundTripper) rotation.Ledger {
		return newTable(t,
			transport)
	})
}

func TestRateLimiterKeepsTheContract(t *testing.T) {
	rotationtest.TestRateLimiter(t, func(t *testing.T) rotation.RateLimiter { return newTable(t, http.DefaultTransport) })
}

func TestNoticeClaimsKeepTheContract(t *testing.T) {
	rotationtest.TestNoticeClaims(t, func(t *testing.T) rotation.NoticeClaims {
		return newTable(t,
			http.DefaultTransport)
	})
}

// newTable makes a table and reaches it through transport.
func newTable(t *testing.T, transport http.RoundTripper) *dynamo.Table {
	t.Helper()
	return dynamo.New(dynamodb.NewFromConfig(awstest.Server(t, transport)), makeTable(t))
}

// makeTable makes a table as the template does and returns its name.
func makeTable(t *testing.T) string {
	t.Helper()
	name := "test-" + rand.Text()
	attribute := func(name string, kind types.ScalarAttributeType) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: aws.String(name), AttributeType: kind}
	}
	keys := func(hash, sort string) []types.KeySchemaElement {
		return []types.KeySchemaElement{{AttributeName: aws.String(hash), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(sort), KeyType: types.KeyTypeRange}}
	}
	// A repeated CreateTable is refused; whether it took effect is what counts.
	maker := dynamodb.NewFromConfig(awstest.Server(t, http.DefaultTransport))
	_, err := maker.CreateTable(t.Context(), &dynamodb.CreateTableInput{TableName: &name,
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{attribute("pk", types.ScalarAttributeTypeS),
			attribute("sk", types.ScalarAttributeTypeS),
			attribute("due_bucket", types.ScalarAttributeTypeS), attribute("due_at", types.ScalarAttributeTypeN)},
		KeySchema: keys("pk", "sk"),
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{IndexName: aws.String("due"), KeySchema: keys("due_bucket",
			"due_at"),
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly}}}})
	if _, there := maker.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &name}); there != nil {
		t.Fatalf("making table %s: %v", name, err)
	}
	return name
}

func TestStoreKeepsTheContract(t *testing.T) {
	invitationstest.TestStore(t, func(t *testing.T) invitations.Store { return newTable(t, http.DefaultTransport) })
}

func TestStoreKeepsTheContractWhenRequestsAreRepeated(t *testing.T) {
	invitationstest.TestStoreRepeats(t, func(t *testing.T, transport http.RoundTripper) invitations.Store {
		return newTable(t,
			transport)
	})
}
