package awsstack

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	awsdynamodb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	awssecretsmanager "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// A function's clients are configured as the SDK's own loader would configure them.
func TestFunctionConfigIsWhatTheSDKLoads(t *testing.T) {
	role := []string{"AWS_REGION=us-west-2", "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=example",
		"AWS_SESSION_TOKEN=session"}
	for name, more := range map[string][]string{
		"a role":                      nil,
		"an endpoint for all":         {"AWS_ENDPOINT_URL=http://localhost:5000"},
		"an endpoint for one service": {"AWS_ENDPOINT_URL_SECRETS_MANAGER=http://localhost:5001"},
		"both": {"AWS_ENDPOINT_URL=http://localhost:5000",
			"AWS_ENDPOINT_URL_DYNAMODB=http://localhost:5002"},
		"FIPS":               {"AWS_USE_FIPS_ENDPOINT=true"},
		"no FIPS":            {"AWS_USE_FIPS_ENDPOINT=false"},
		"dual stack":         {"AWS_USE_DUALSTACK_ENDPOINT=True"},
		"the default region": {"AWS_REGION=", "AWS_DEFAULT_REGION=us-gov-west-1"},
	} {
		t.Run(name, func(t *testing.T) {
			none := []string{"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull, "AWS_PROFILE="}
			for _, set := range slices.Concat(none, role, more) {
				name, value, _ := strings.Cut(set, "=")
				t.Setenv(name, value)
			}
			theirs, err := awsconfig.LoadDefaultConfig(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ours, err := FunctionConfig(os.Getenv)
			if err != nil {
				t.Fatal(err)
			}
			ourKeys, err := ours.Credentials.Retrieve(t.Context())
			theirKeys, theirErr := theirs.Credentials.Retrieve(t.Context())
			if err != nil || theirErr != nil || ourKeys.AccessKeyID != theirKeys.AccessKeyID ||
				ourKeys.SecretAccessKey != theirKeys.SecretAccessKey || ourKeys.SessionToken != theirKeys.SessionToken {
				t.Errorf("credentials of %q (%v), want those of %q (%v)", ourKeys.AccessKeyID, err, theirKeys.AccessKeyID, theirErr)
			}
			ourTable, theirTable := awsdynamodb.NewFromConfig(ours).Options(), awsdynamodb.NewFromConfig(theirs).Options()
			if ourTable.Region != theirTable.Region || ourTable.EndpointOptions != theirTable.EndpointOptions ||
				aws.ToString(ourTable.BaseEndpoint) != aws.ToString(theirTable.BaseEndpoint) {
				t.Errorf("DynamoDB in %s at %q with %+v, want %s at %q with %+v", ourTable.Region,
					aws.ToString(ourTable.BaseEndpoint), ourTable.EndpointOptions, theirTable.Region,
					aws.ToString(theirTable.BaseEndpoint), theirTable.EndpointOptions)
			}
			ourStore, theirStore := awssecretsmanager.NewFromConfig(ours).Options(),
				awssecretsmanager.NewFromConfig(theirs).Options()
			if aws.ToString(ourStore.BaseEndpoint) != aws.ToString(theirStore.BaseEndpoint) {
				t.Errorf("Secrets Manager at %q, want %q", aws.ToString(ourStore.BaseEndpoint),
					aws.ToString(theirStore.BaseEndpoint))
			}
		})
	}
}

func TestFunctionConfigNeedsCredentials(t *testing.T) {
	env := map[string]string{"AWS_REGION": "us-west-2", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"}
	_, err := FunctionConfig(func(name string) string { return env[name] })
	if err == nil || !strings.Contains(err.Error(), "AWS_SECRET_ACCESS_KEY") {
		t.Errorf("got %v", err)
	}
}
