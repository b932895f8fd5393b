// Package awsstack opens all parts of one AWS installation from its settings. Both
// functions and the operator CLI start here, so they always use the same stores.
package awsstack

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsdynamodb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	awssecretsmanager "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	awssns "github.com/aws/aws-sdk-go-v2/service/sns"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/dynamo"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/kms"
	"github.com/tokenturn/tokenturn/pkg/metrics"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/release"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
	"github.com/tokenturn/tokenturn/pkg/sns"
	"github.com/tokenturn/tokenturn/pkg/sqs"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/traces"
)

// A call to AWS ends within attempts x patience plus the pauses between, whatever
// its caller's deadline: a store that hangs gets seconds, so that time is left for
// the other one. Every write of the adapters recognizes its own repetition, so
// repeating is safe.
const (
	patience = 5 * time.Second
	attempts = 4
	// sendPatience and sendPause are for messages. The sender of a follow-up waits for
	// 4 s, the sender of a notice for 3 s; two attempts must fit into that time.
	sendPatience = 1300 * time.Millisecond
	sendPause    = 100 * time.Millisecond // at most, before the second attempt; doubled before each further one
)

// Stack is one installation. Its parts are safe for concurrent use. A process
// needs only one: the secret store's rate limit and the issuer's connections are
// shared.
type Stack struct {
	Settings     config.Settings
	Log          *slog.Logger
	Meter        *metrics.Meter // nil: nothing is measured
	Tracer       *traces.Tracer // nil: nothing is traced
	Table        *dynamo.Table  // ledger, invitations, states and rate limiter
	SecretStore  *secretsmanager.SecretStore
	Deletions    *secretsmanager.Deletions // of secrets; for the operator only
	Protections  *secretsmanager.Protections
	Applications *secretsmanager.Applications
	Sealer       *kms.Sealer
	Issuer       *procore.Issuer
	FollowUps    rotation.FollowUps // nil without a queue
	Notifier     rotation.Notifier  // nil without a topic

	clients clients // of Checks
}

// Open makes the clients and makes no call. cfg has region, credentials and endpoints; Open
// sets the time limits and retries. meter and tracer may be nil.
func Open(cfg aws.Config, settings config.Settings, log *slog.Logger, meter *metrics.Meter,
	tracer *traces.Tracer) (*Stack, error) {
	if cfg.Region == "" {
		return nil, errors.New("no AWS region is set: set AWS_REGION, or a region in your AWS profile")
	}
	cfg = cfg.Copy()
	cfg.HTTPClient, cfg.Retryer = httpClient(settings.Concurrency), retryer
	cfg.APIOptions = append(cfg.APIOptions, meter.Calls, tracer.Calls)
	db, secrets := awsdynamodb.NewFromConfig(cfg), awssecretsmanager.NewFromConfig(cfg)
	sending := cfg.Copy()
	sending.HTTPClient, sending.Retryer = httpClient(settings.Concurrency).WithTimeout(sendPatience), sendRetryer
	queues, topics := awssqs.NewFromConfig(sending), awssns.NewFromConfig(sending)
	naming := secretsmanager.Naming{Prefix: settings.SecretPrefix, Stack: settings.Stack, KMSKey: settings.VaultKey}
	s := &Stack{
		Settings:     settings,
		Log:          log,
		Meter:        meter,
		Tracer:       tracer,
		Table:        dynamo.New(db, settings.Table),
		SecretStore:  secretsmanager.NewSecretStore(secrets, naming),
		Deletions:    secretsmanager.NewDeletions(secrets, naming),
		Protections:  secretsmanager.NewProtections(secrets, naming),
		Applications: secretsmanager.NewApplications(secrets, naming, procore.ParseApplication),
		Sealer:       kms.New(awskms.NewFromConfig(cfg), settings.SealKey, settings.Stack),
		clients:      clients{db, secrets, queues, topics},
		Issuer: procore.New(procore.Config{RedeemTimeout: settings.RedeemTimeout, Version: release.Version(),
			Proxy: settings.ProxyURL()}),
	}
	if settings.QueueURL != "" {
		s.FollowUps = sqs.New(queues, settings.QueueURL)
	}
	if settings.TopicARN != "" {
		s.Notifier = sns.New(topics, settings.TopicARN)
	}
	return s, nil
}

// httpClient bounds each attempt, and keeps one network connection for each of the
// tokenturn connections in flight instead of the usual ten: above that number, every
// call would begin with a TLS handshake.
func httpClient(concurrency int) *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTimeout(patience).WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = max(t.MaxIdleConnsPerHost, concurrency+2)
	})
}

func retryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = attempts
		o.MaxBackoff = patience
	})
}

// sendRetryer pauses for a random part of a limit that doubles each time.
func sendRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = attempts
		o.Backoff = retry.BackoffDelayerFunc(func(made int, _ error) (time.Duration, error) {
			return rand.N(sendPause << max(made-1, 0)), nil
		})
	})
}

// warmUp is how long Warm may take. Lambda gives a function ten seconds to start.
const warmUp = 2 * time.Second

// Warm reads the root certificates and opens the connection to DynamoDB. A function calls it
// once before it starts serving: Lambda gives the start of a function a whole processor, and
// an event only the share that belongs to its memory. If it fails, the first event waits for
// the same things, and reports what is wrong.
func (s *Stack) Warm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, warmUp)
	defer cancel()
	_, _, _ = s.Table.Load(ctx, token.Connection{Environment: "none", Name: "none"}) // any row will do
}

// Rotator returns the engine on this installation.
func (s *Stack) Rotator() (*rotation.Rotator, error) {
	var links rotation.Invitations
	if s.Settings.PublicURL != "" {
		links = invitations.Renewals{Store: s.Table, Applications: s.Applications, PublicURL: s.Settings.PublicURL}
	}
	return rotation.NewRotator(rotation.Config{Ledger: s.Table, SecretStore: s.SecretStore, Sealer: s.Sealer,
		Applications: s.Applications,
		Issuer:       s.Meter.Issuer(s.Tracer.Issuer(s.Issuer)), FollowUps: s.FollowUps, RateLimiter: s.Table,
		Notifier: s.Meter.Notifier(s.Notifier), NoticeClaims: s.Table,
		Invitations: links, Log: s.Log, Settings: s.Settings.Rotation()})
}

// Consents returns the part that exchanges authorization codes for pairs on this
// installation.
func (s *Stack) Consents() (*rotation.Consents, error) {
	return rotation.NewConsents(rotation.ConsentsConfig{Ledger: s.Table, Sealer: s.Sealer, Applications: s.Applications,
		Issuer: s.Meter.Issuer(s.Tracer.Issuer(s.Issuer)), FollowUps: s.FollowUps, Notifier: s.Meter.Notifier(s.Notifier),
		Log: s.Log, Settings: s.Settings.Rotation()})
}
