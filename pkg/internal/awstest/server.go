package awstest

import (
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Endpoint is the variable that names the AWS server of conformance tests,
// such as http://127.0.0.1:5005.
const Endpoint = "TOKENTURN_TEST_AWS_ENDPOINT"

// Server is the configuration of clients of the server that Endpoint names, reached through
// transport. They repeat a request often, so that a test passes although the server loses
// and refuses some requests on purpose.
func Server(t testing.TB, transport http.RoundTripper) aws.Config {
	t.Helper()
	endpoint := os.Getenv(Endpoint)
	if endpoint == "" {
		t.Fatalf("%s is not set; it takes the URL of an AWS server, such as the one that infra/test/peers/aws/start starts",
			Endpoint)
	}
	return config(endpoint, 30, &http.Client{Transport: transport, Timeout: time.Minute})
}
