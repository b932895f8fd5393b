package tokensource

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// Extension reads through the AWS Parameters and Secrets Lambda Extension, a layer that
// caches secrets for all code in one execution environment
// (https://docs.aws.amazon.com/lambda/latest/dg/with-secrets-manager.html). It is for WithCache:
//
//	tokensource.New(secretsmanager.NewFromConfig(cfg), "production/acme", tokensource.WithCache(tokensource.Extension()))
//
// Set the function's SECRETS_MANAGER_TTL to 60 (seconds): with the layer's default of
// 300 it serves an invalid token for five minutes after each rotation. It documents no
// way to skip its cache, so the read that follows a 401 must not go through it; with
// WithCache it does not.
func Extension() SecretReader {
	// No proxy: the extension is on this machine.
	return extension{&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}}
}

type extension struct{ client *http.Client }

// GetSecretValue implements SecretReader. Lambda sets the two variables; the
// session token proves that the request comes from the function.
func (e extension) GetSecretValue(ctx context.Context, in *secretsmanager.GetSecretValueInput,
	_ ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	query := url.Values{"secretId": {*in.SecretId}, "versionStage": {*in.VersionStage}}
	address := "http://localhost:" + cmp.Or(os.Getenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"), "2773") +
		"/secretsmanager/get?" + query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("asking the Lambda extension: %w", err)
	}
	request.Header.Set("X-Aws-Parameters-Secrets-Token", os.Getenv("AWS_SESSION_TOKEN"))
	response, err := e.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the Lambda extension: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK { // also 400 while it is not ready
		return nil, fmt.Errorf("asking the Lambda extension: it answered %s", response.Status)
	}
	const limit = 1 << 20 // a secret has at most 64 KiB before escaping
	var out struct{ SecretString *string }
	if err := json.NewDecoder(io.LimitReader(response.Body, limit)).Decode(&out); err != nil {
		return nil, fmt.Errorf("reading the answer of the Lambda extension: it is not the JSON of GetSecretValue")
	}
	return &secretsmanager.GetSecretValueOutput{SecretString: out.SecretString}, nil
}
