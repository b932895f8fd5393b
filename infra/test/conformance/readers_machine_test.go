//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
)

var machineConnections = []string{"demo/acme", "demo/globex"}

// TestReadersOnOneMachine has the readers for AWS, unchanged, use the API through many
// rotations (a hundred in make soak) with the tokens of `tokenturn serve`. Only their environment says where those are.
// It has no t.Parallel, because it sets the environment of this process for the Go reader.
func TestReadersOnOneMachine(t *testing.T) {
	server := procoretest.New(procoretest.WithLifetime(readLifetime))
	t.Cleanup(server.Close)
	s := newSite(t)
	var app procoretest.App
	s.serve(server.URL, func(publicURL string) procoretest.App {
		app = server.NewApp(publicURL + "/callback/demo")
		return app
	})
	for _, connection := range machineConnections {
		pair, err := server.Issue(app.ClientID, procoretest.DefaultUser().Login)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.run([]byte(pair.RefreshToken.Reveal()), "connection", "import", connection); err != nil {
			t.Fatal(err)
		}
	}
	tokenFile := filepath.Join(s.data, "reader-token")
	readerToken, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(readerToken))
	public, err := url.Parse(s.publicURL)
	if err != nil {
		t.Fatal(err)
	}
	s.readsWithCurl(tokenFile)

	t.Setenv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", public.Port())
	t.Setenv("AWS_SESSION_TOKEN", secret)
	env := append(osVariables(), "AWS_ENDPOINT_URL_SECRETS_MANAGER="+s.publicURL+"/secretsmanager", "AWS_REGION=local",
		"AWS_DEFAULT_REGION=local", "AWS_ACCESS_KEY_ID=tokenturn", "AWS_SECRET_ACCESS_KEY=tokenturn",
		"AWS_SESSION_TOKEN="+secret, "AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull, "AWS_PAGER=",
		"PYTHONDONTWRITEBYTECODE=1", "PATH="+tools(t).path)
	client := secretsmanager.NewFromConfig(aws.Config{Region: "local",
		BaseEndpoint: aws.String(s.publicURL + "/secretsmanager"),
		Credentials:  credentials.NewStaticCredentialsProvider("tokenturn", "tokenturn", secret)})

	const pause = 400 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var said lockedBuffer
	results := map[string]*tally{}
	var running sync.WaitGroup
	reader := func(name string, read func(context.Context) tally) {
		result := &tally{}
		results[name] = result
		running.Go(func() { *result = read(ctx) })
	}
	reader("Go", func(ctx context.Context) tally {
		return crowd(ctx, machineConnections, readersEach, pause, func(connection string) func() (int, error) {
			return requests(tokensource.New(client, connection, tokensource.WithCache(tokensource.Extension())))
		})
	})
	for _, program := range otherReaders(t) {
		reader(program.language, func(ctx context.Context) tally {
			return program.hammer(ctx, env, "tokenturn", machineConnections, pause, &said)
		})
	}
	began := time.Now()
	var rotations sync.WaitGroup
	for _, connection := range machineConnections {
		rotations.Go(func() {
			for range machineRotationsEach {
				started := time.Now()
				if _, err := s.operate("connection", "rotate", connection); err != nil {
					t.Error(err)
					return
				}
				// As in TestReadersNoticeNoRotation: a reader in bash needs some seconds to find the new token.
				time.Sleep(max(4*time.Second, 3*time.Since(started)))
			}
		})
	}
	rotations.Wait()
	stop()
	running.Wait()
	t.Logf("%d rotations in %v", machineRotationsEach*len(machineConnections), time.Since(began).Round(time.Second))
	for name, result := range results {
		t.Logf("%-10s %6d requests, failed for good: %d", name, result.OK+result.Failed, result.Failed)
		if result.Failed != 0 || result.OK < machineRotationsEach {
			t.Errorf("%s: %d requests failed and %d succeeded; the last failure: %v", name, result.Failed, result.OK,
				result.Why)
		}
	}
	for _, secret := range server.Secrets() {
		if strings.Contains(said.String()+s.log.String(), secret.Reveal()) {
			t.Error("a log has a secret")
		}
	}
	if strings.Contains(s.log.String(), secret) {
		t.Error("the log of tokenturn serve has the token of readers")
	}
}

// readsWithCurl is the command of README.md.
func (s *site) readsWithCurl(tokenFile string) {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), "bash", "-c",
		`curl -s -H @- "$2/secretsmanager/get?secretId=tokenturn/connection/demo/acme" \
    <<<"X-Aws-Parameters-Secrets-Token: $(<"$1")" | jq -r .SecretString`, "bash", tokenFile, s.publicURL).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := token.ParseDocument(token.NewSecret(string(bytes.TrimSpace(out))))
	if err != nil || d.Connection.String() != "demo/acme" || d.AccessToken.IsZero() {
		s.t.Errorf("curl reads %d bytes: %v", len(out), err)
	}
	var printed struct {
		AccessToken string `json:"access_token"`
	}
	out, err = s.operate("token", "print", "demo/acme")
	if err != nil || json.Unmarshal(out, &printed) != nil || printed.AccessToken != d.AccessToken.Reveal() {
		s.t.Errorf("token print prints another token: %v", err)
	}
}
