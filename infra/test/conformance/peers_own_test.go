//go:build conformance

package conformance

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	secretstypes "github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
)

// The tests in this file ask whether the peers are the ones that the others
// rely on. A cloud that hands one lease to two claimers, or a provider that
// takes a refresh token twice, would let everything else pass for nothing.

func TestCloudIsStrict(t *testing.T) {
	t.Parallel()
	c := startCloud(t)
	cfg := aws.Config{Region: "us-east-1", BaseEndpoint: &c.url,
		Credentials: credentials.NewStaticCredentialsProvider(keyOfTest, "test", "")}
	in := &installation{t: t, cloud: c, dynamodb: dynamodb.NewFromConfig(cfg), secrets: secretsmanager.NewFromConfig(cfg)}
	in.table("strict")

	t.Run("a conditional write has one winner", func(t *testing.T) {
		for round := range 20 {
			var winners atomic.Int32
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					_, err := in.dynamodb.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("strict"),
						ConditionExpression: aws.String("attribute_not_exists(pk)"),
						Item: map[string]dynamodbtypes.AttributeValue{"pk": &dynamodbtypes.AttributeValueMemberS{
							Value: fmt.Sprint(round)},
							"sk": &dynamodbtypes.AttributeValueMemberS{Value: "x"}}})
					if _, lost := errors.AsType[*dynamodbtypes.ConditionalCheckFailedException](err); err == nil {
						winners.Add(1)
					} else if !lost {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if winners.Load() != 1 {
				t.Fatalf("round %d has %d winners", round, winners.Load())
			}
		}
	})
	t.Run("a version id names one content", func(t *testing.T) {
		_, err := in.secrets.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("s"),
			SecretString: aws.String("zero")})
		in.must(err)
		put := func(value string) error {
			_, err := in.secrets.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: aws.String("s"),
				ClientRequestToken: aws.String(strings.Repeat("1", 48)), SecretString: &value,
				VersionStages: []string{"AWSPENDING"}})
			return err
		}
		in.must(put("one"))
		in.must(put("one"))
		if _, taken := errors.AsType[*secretstypes.ResourceExistsException](put("two")); !taken {
			t.Error("the version takes other content")
		}
	})
	t.Run("faults strike", func(t *testing.T) {
		c.faults(0, 1)
		defer c.faults(0, 0)
		_, err := in.secrets.ListSecrets(t.Context(), &secretsmanager.ListSecretsInput{},
			func(o *secretsmanager.Options) { o.RetryMaxAttempts = 1 })
		if err == nil || !strings.Contains(err.Error(), "ThrottlingException") {
			t.Errorf("got %v, want a throttled call", err)
		}
		if calls, _ := c.log(0); calls[len(calls)-1].Who != keyOfTest || calls[len(calls)-1].Fault != "refuse" {
			t.Errorf("the log ends with %+v, want the throttled call and its caller", calls[len(calls)-1])
		}
	})
}

func TestProviderSpendsRefreshTokens(t *testing.T) {
	for _, grace := range []int{0, 1} {
		t.Run(fmt.Sprintf("GRACE=%d", grace), func(t *testing.T) {
			t.Parallel()
			p := startProvider(t, grace, time.Hour)
			authorize := p.url + "/oauth/authorize?" + url.Values{"client_id": {p.clientID}, "redirect_uri": {redirectURI},
				"response_type": {"code"}}.Encode()
			code, err := exec.Command("../peers/doorkeeper/drive", "code", p.url, authorize).Output()
			if err != nil {
				t.Fatalf("drive code: %v", err)
			}
			redeem := func(form url.Values) int {
				form.Set("client_id", p.clientID)
				form.Set("client_secret", p.clientSecret)
				answer, err := http.PostForm(p.url+"/oauth/token", form)
				if err != nil {
					t.Fatal(err)
				}
				_ = answer.Body.Close()
				return answer.StatusCode
			}
			if got := redeem(url.Values{"grant_type": {"authorization_code"}, "code": {strings.TrimSpace(string(code))},
				"redirect_uri": {redirectURI}}); got != http.StatusOK {
				t.Fatalf("the code: %d", got)
			}
			refresh := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {p.issued().Tokens[0].Refresh}}
			again := map[int]int{0: http.StatusBadRequest, 1: http.StatusOK}[grace] // the new access token is unused
			if first, second := redeem(refresh), redeem(refresh); first != http.StatusOK || second != again {
				t.Errorf("a refresh token presented twice: %d and %d, want 200 and %d", first, second, again)
			}
		})
	}
}
