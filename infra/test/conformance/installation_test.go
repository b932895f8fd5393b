//go:build conformance

package conformance

import (
	"encoding/json"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tokenturn/tokenturn/infra/test/lambdaruntime"
)

const (
	environment = "peer" // the custom environment, with Doorkeeper's hosts
	publicURL   = "https://connect.example.test"
	redirectURI = publicURL + "/callback/" + environment
)

// Access keys, which appear in moto's log.
const (
	keyOfRotate   = "AKIAROTATE"
	keyOfCallback = "AKIACALLBACK"
	keyOfOperator = "AKIAOPERATOR"
	keyOfTest     = "AKIATEST"
)

// installation is one deployment of tokenturn: stores of its own on a cloud
// that others may share, both functions, and an ear on every line.
type installation struct {
	t        *testing.T
	cloud    *cloud
	provider *provider
	tap      *wiretap

	env      map[string]string // TOKENTURN_* and AWS_*, without an access key
	rotate   *lambdaruntime.Function
	callback *lambdaruntime.Function

	dynamodb *dynamodb.Client
	secrets  *secretsmanager.Client
	queue    *sqs.Client

	logs    lockedBuffer // what the functions and the command wrote to stdout and stderr
	answers lockedBuffer // what the functions answered, errors included
	pages   lockedBuffer // what a browser was shown
	canary  canaries
}

// patient are settings under which a peer that is slow, because many tests use this
// machine, has the time to answer that it has in production.
var patient = map[string]string{"TOKENTURN_CADENCE": "1s", "TOKENTURN_REDEEM_RATE": "50"}

// quick are settings under which a crashed attempt is looked at after a quarter
// of a minute. The lease is the shortest that the redeem timeout allows.
var quick = map[string]string{
	"TOKENTURN_CADENCE":        "1s",
	"TOKENTURN_REDEEM_TIMEOUT": "4s",
	"TOKENTURN_LEASE":          "13s",
	"TOKENTURN_QUIET":          "1s",
	"TOKENTURN_REDEEM_RATE":    "50",
}

// leaseAndQuiet is when quick lets a token in doubt be presented again; a due
// time is kept in whole seconds.
const leaseAndQuiet = 15 * time.Second

// install makes what template.yaml would. name keeps installations on one
// cloud apart.
func install(t *testing.T, c *cloud, p *provider, name string, settings map[string]string) *installation {
	t.Helper()
	in := &installation{t: t, cloud: c, provider: p, tap: newWiretap(t, c.url, p.url)}
	cfg := aws.Config{Region: "us-east-1", BaseEndpoint: &c.url,
		Credentials: credentials.NewStaticCredentialsProvider(keyOfTest, "test", ""),
		Retryer:     func() aws.Retryer { return retry.AddWithMaxAttempts(retry.NewStandard(), 15) }}
	in.dynamodb, in.secrets, in.queue = dynamodb.NewFromConfig(cfg), secretsmanager.NewFromConfig(cfg),
		sqs.NewFromConfig(cfg)
	in.env = map[string]string{
		"AWS_REGION":              "us-east-1",
		"AWS_SECRET_ACCESS_KEY":   "test",
		"AWS_ENDPOINT_URL":        in.tap.awsURL,
		"TOKENTURN_TABLE":         name,
		"TOKENTURN_SECRET_PREFIX": name,
		"TOKENTURN_SEAL_KEY":      in.key(kms.NewFromConfig(cfg), "sealing"),
		"TOKENTURN_VAULT_KEY":     in.key(kms.NewFromConfig(cfg), "secrets at rest"),
		"TOKENTURN_PUBLIC_URL":    publicURL,
		"TOKENTURN_QUEUE_URL":     in.makeQueue(name),
		"TOKENTURN_TOPIC_ARN":     in.topic(sns.NewFromConfig(cfg), name),
		"TOKENTURN_LOG_LEVEL":     "debug",
	}
	maps.Copy(in.env, settings)
	in.table(name)
	in.application()
	in.rotate = in.function(buildRotate, "rotate", keyOfRotate, time.Minute)
	in.callback = in.function(buildCallback, "callback", keyOfCallback, 90*time.Second)
	in.canary.add("client secret", p.clientSecret)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the programs of %s wrote:\n%s", name, in.logs.tail(8000))
		}
	})
	return in
}

// function deploys a program. Its log and the answers stay with the installation.
func (in *installation) function(program func() (string, error), name, key string,
	timeout time.Duration) *lambdaruntime.Function {
	in.t.Helper()
	f := lambdaruntime.New(lambdaruntime.Config{Name: name, Bootstrap: built(in.t, program), Env: in.variables(key),
		Timeout: timeout, Log: &in.logs})
	in.t.Cleanup(f.Kill)
	return f
}

func (in *installation) variables(key string) map[string]string {
	env := maps.Clone(in.env)
	env["AWS_ACCESS_KEY_ID"] = key
	return env
}

func (in *installation) key(client *kms.Client, what string) string {
	in.t.Helper()
	out, err := client.CreateKey(in.t.Context(), &kms.CreateKeyInput{Description: &what})
	in.must(err)
	return *out.KeyMetadata.Arn
}

func (in *installation) makeQueue(name string) string {
	in.t.Helper()
	out, err := in.queue.CreateQueue(in.t.Context(), &sqs.CreateQueueInput{QueueName: &name})
	in.must(err)
	return *out.QueueUrl
}

func (in *installation) topic(client *sns.Client, name string) string {
	in.t.Helper()
	out, err := client.CreateTopic(in.t.Context(), &sns.CreateTopicInput{Name: &name})
	in.must(err)
	return *out.TopicArn
}

func (in *installation) table(name string) {
	in.t.Helper()
	text := func(attribute string) dynamodbtypes.AttributeDefinition {
		return dynamodbtypes.AttributeDefinition{AttributeName: &attribute, AttributeType: dynamodbtypes.ScalarAttributeTypeS}
	}
	keys := func(hash, sort string) []dynamodbtypes.KeySchemaElement {
		return []dynamodbtypes.KeySchemaElement{{AttributeName: &hash, KeyType: dynamodbtypes.KeyTypeHash},
			{AttributeName: &sort, KeyType: dynamodbtypes.KeyTypeRange}}
	}
	_, err := in.dynamodb.CreateTable(in.t.Context(), &dynamodb.CreateTableInput{TableName: &name,
		BillingMode: dynamodbtypes.BillingModePayPerRequest, KeySchema: keys("pk", "sk"),
		AttributeDefinitions: []dynamodbtypes.AttributeDefinition{text("pk"), text("sk"), text("due_bucket"),
			{AttributeName: aws.String("due_at"), AttributeType: dynamodbtypes.ScalarAttributeTypeN}},
		GlobalSecondaryIndexes: []dynamodbtypes.GlobalSecondaryIndex{{IndexName: aws.String("due"),
			KeySchema: keys("due_bucket", "due_at"), Projection: &dynamodbtypes.Projection{
				ProjectionType: dynamodbtypes.ProjectionTypeKeysOnly}}}})
	in.must(err)
	_, err = in.dynamodb.UpdateTimeToLive(in.t.Context(), &dynamodb.UpdateTimeToLiveInput{TableName: &name,
		TimeToLiveSpecification: &dynamodbtypes.TimeToLiveSpecification{AttributeName: aws.String("ttl"),
			Enabled: aws.Bool(true)}})
	in.must(err)
}

// application stores the app credentials as `app set` would. Both hosts are
// Doorkeeper, heard through the wiretap.
func (in *installation) application() {
	in.t.Helper()
	in.applicationOf(environment, in.provider, in.tap.loginURL)
}

func (in *installation) applicationOf(environment string, p *provider, loginURL string) {
	in.t.Helper()
	value, _ := json.Marshal(map[string]string{"client_id": p.clientID, "client_secret": p.clientSecret,
		"redirect_uri": publicURL + "/callback/" + environment, "login_url": loginURL, "api_url": loginURL})
	_, err := in.secrets.CreateSecret(in.t.Context(),
		&secretsmanager.CreateSecretInput{KmsKeyId: aws.String(in.env["TOKENTURN_VAULT_KEY"]),
			Name:         aws.String(in.env["TOKENTURN_SECRET_PREFIX"] + "/app/" + environment),
			SecretString: aws.String(string(value))})
	in.must(err)
}

func (in *installation) must(err error) {
	in.t.Helper()
	if err != nil {
		in.t.Fatal(err)
	}
}

// osVariables are the few variables of this process that a command needs. No command reads
// the profiles of the person who runs the tests.
func osVariables() []string {
	kept := []string{"XDG_CONFIG_HOME=/nonexistent"}
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); name == "PATH" || name == "HOME" {
			kept = append(kept, pair)
		}
	}
	return kept
}
