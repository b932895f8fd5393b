package awsstack

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// FunctionConfig is the configuration of the AWS SDK in a Lambda function, from its
// environment variables ("Defined runtime environment variables" in the AWS Lambda
// developer guide). It accepts the SDK's variables for endpoints (AWS_ENDPOINT_URL,
// AWS_ENDPOINT_URL_<SERVICE>, AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT). The SDK's
// own loader also finds files, profiles and IAM Identity Center, which a function does not
// have; it would add 1.8 MB to the function.
//
// getenv is os.Getenv.
func FunctionConfig(getenv func(string) string) (aws.Config, error) {
	cfg := aws.Config{Region: cmp.Or(getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION")),
		ConfigSources: []any{variables(getenv)}}
	if endpoint := getenv("AWS_ENDPOINT_URL"); endpoint != "" {
		cfg.BaseEndpoint = &endpoint
	}
	credentials := aws.Credentials{AccessKeyID: getenv("AWS_ACCESS_KEY_ID"),
		SecretAccessKey: getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: getenv("AWS_SESSION_TOKEN"), Source: "environment"}
	if !credentials.HasKeys() {
		return aws.Config{}, errors.New("no AWS credentials in the environment: AWS_ACCESS_KEY_ID and " +
			"AWS_SECRET_ACCESS_KEY are not set; Lambda sets them from the function's role")
	}
	// As with the SDK's own loader, these are read once: they last as long as the environment.
	cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return credentials, nil
	})
	return cfg, nil
}

// variables are environment variables as the SDK's clients look them up in
// aws.Config.ConfigSources.
type variables func(name string) string

// GetServiceBaseEndpoint returns the endpoint of one service, such as "Secrets Manager".
func (v variables) GetServiceBaseEndpoint(_ context.Context, sdkID string) (string, bool, error) {
	endpoint := v("AWS_ENDPOINT_URL_" + strings.ReplaceAll(strings.ToUpper(sdkID), " ", "_"))
	return endpoint, endpoint != "", nil
}

// GetUseFIPSEndpoint says whether endpoints are those with validated cryptography.
func (v variables) GetUseFIPSEndpoint(context.Context) (aws.FIPSEndpointState, bool, error) {
	switch strings.ToLower(v("AWS_USE_FIPS_ENDPOINT")) {
	case "true":
		return aws.FIPSEndpointStateEnabled, true, nil
	case "false":
		return aws.FIPSEndpointStateDisabled, true, nil
	}
	return aws.FIPSEndpointStateUnset, false, nil
}

// GetUseDualStackEndpoint says whether endpoints are those that also have IPv6.
func (v variables) GetUseDualStackEndpoint(context.Context) (aws.DualStackEndpointState, bool, error) {
	switch strings.ToLower(v("AWS_USE_DUALSTACK_ENDPOINT")) {
	case "true":
		return aws.DualStackEndpointStateEnabled, true, nil
	case "false":
		return aws.DualStackEndpointStateDisabled, true, nil
	}
	return aws.DualStackEndpointStateUnset, false, nil
}
