package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/tokenturn/tokenturn/pkg/awsstack"
)

// openAWS opens the installation in AWS that the flags, the environment or a profile name.
func (c *cli) openAWS(ctx context.Context, log *slog.Logger) (*installation, error) {
	conf, err := c.configure(ctx)
	if err != nil {
		return nil, err
	}
	settings, err := conf.settings()
	if err != nil {
		return nil, err
	}
	stack, err := awsstack.Open(conf.aws, settings, log, nil, nil)
	if err != nil {
		return nil, err
	}
	return &installation{ledger: stack.Table, secrets: stack.SecretStore, deletions: stack.Deletions,
		protections: stack.Protections,
		caller:      caller(conf.aws), sealer: stack.Sealer, apps: stack.Applications,
		consents: stack.Table, issuer: stack.Issuer, followUps: stack.FollowUps, notifier: stack.Notifier,
		rateLimiter: stack.Table, noticeClaims: stack.Table,
		settings: settings.Rotation(), publicURL: settings.PublicURL, returnOrigins: settings.ReturnOrigins,
		secretPrefix: settings.SecretPrefix, log: log,
		checks: stack.Checks(),
		close:  func() error { return nil }}, nil
}

// caller returns the ARN of the AWS identity that makes the calls.
func caller(cfg aws.Config) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		out, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil {
			return "", fmt.Errorf("asking AWS STS for the identity of the credentials: %w", err)
		}
		return aws.ToString(out.Arn), nil
	}
}
