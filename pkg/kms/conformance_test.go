//go:build conformance

package kms_test

import (
	"net/http"
	"testing"

	awskms "github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/kms"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

func TestSealerKeepsTheContract(t *testing.T) {
	client := awskms.NewFromConfig(awstest.Server(t, http.DefaultTransport))
	made, err := client.CreateKey(t.Context(), &awskms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	key := *made.KeyMetadata.Arn
	rotationtest.TestSealer(t, func(*testing.T) (a, sameKeys, other rotation.Sealer) {
		return kms.New(client, key, "stack-a"), kms.New(client, key, "stack-a"), kms.New(client, key, "stack-b")
	})
}
