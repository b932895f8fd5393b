//go:build conformance

package conformance

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// document is what a program in any language reads from a connection's secret.
type document struct {
	Format       int       `json:"format"`
	Connection   string    `json:"connection"`
	Environment  string    `json:"environment"`
	APIURL       string    `json:"api_url"`
	CompanyID    string    `json:"company_id"`
	AccessToken  string    `json:"access_token"`
	TokenType    string    `json:"token_type"`
	ExpiresAt    time.Time `json:"expires_at"`
	Epoch        int64     `json:"epoch"`
	Generation   int64     `json:"generation"`
	SealedAnswer string    `json:"sealed_answer"`
}

func (in *installation) secretName(connection string) string {
	return in.env["TOKENTURN_SECRET_PREFIX"] + "/connection/" + connection
}

// read reads the secret by its label, as consumers do.
func (in *installation) read(connection string) document {
	in.t.Helper()
	out, err := in.secrets.GetSecretValue(in.t.Context(),
		&secretsmanager.GetSecretValueInput{SecretId: aws.String(in.secretName(connection))})
	in.must(err)
	var d document
	if err := json.Unmarshal([]byte(aws.ToString(out.SecretString)), &d); err != nil {
		in.t.Fatalf("the secret of %s is not JSON: %v", connection, err)
	}
	if d.Format != 1 || d.Connection != connection || !strings.HasPrefix(connection, d.Environment+"/") ||
		d.SealedAnswer == "" {
		in.t.Fatalf("the secret of %s has format %d, connection %q, environment %q", connection, d.Format, d.Connection,
			d.Environment)
	}
	return d
}

// use calls the API with the token in the secret and returns the status.
func (in *installation) use(d document) int {
	in.t.Helper()
	request, err := http.NewRequestWithContext(in.t.Context(), http.MethodGet, d.APIURL+"/rest/v1.0/me", nil)
	in.must(err)
	request.Header.Set("Authorization", d.TokenType+" "+d.AccessToken)
	if d.CompanyID != "" {
		request.Header.Set("Procore-Company-Id", d.CompanyID)
	}
	answer, err := http.DefaultClient.Do(request)
	in.must(err)
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}

// works reads the secret and insists that its token is accepted.
func (in *installation) works(connection string) document {
	in.t.Helper()
	d := in.read(connection)
	if status := in.use(d); status != http.StatusOK {
		in.t.Errorf("%s (%d, %d): /rest/v1.0/me answers %d, the token has %v left",
			connection, d.Epoch, d.Generation, status, time.Until(d.ExpiresAt).Round(time.Millisecond))
	}
	return d
}
