package secretsmanager

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// ParseApplication reads the stored form of an environment's app credentials. Its
// error must contain nothing of the value.
type ParseApplication func(environment string, value token.Secret) (rotation.Application, error)

// Applications is a rotation.Applications. It is safe for concurrent use.
type Applications struct {
	client Client
	naming Naming
	parse  ParseApplication
}

var _ rotation.Applications = (*Applications)(nil)

// NewApplications makes no call.
func NewApplications(client Client, naming Naming, parse ParseApplication) *Applications {
	return &Applications{client, naming, parse}
}

// Application implements rotation.Applications.
func (a *Applications) Application(ctx context.Context, environment string) (rotation.Application, error) {
	value, err := a.Value(ctx, environment)
	if err != nil {
		return rotation.Application{}, err
	}
	app, err := a.parse(environment, value)
	if err != nil {
		return rotation.Application{}, fmt.Errorf("environment %s: %w that can be used in secret %s: %w; "+
			"store them again with: tokenturn app set %s",
			environment, rotation.ErrNoApplication, a.naming.application(environment), err, environment)
	}
	return app, nil
}

// Value returns what Set stored, unchanged. rotation.ErrNoApplication.
func (a *Applications) Value(ctx context.Context, environment string) (token.Secret, error) {
	name := a.naming.application(environment)
	out, err := a.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name,
		VersionStage: aws.String(current)})
	switch err = translate(err); {
	case errors.Is(err, rotation.ErrNoSecret):
		return token.Secret{}, fmt.Errorf("environment %s: %w: secret %s does not exist or is empty; store them with: "+
			"tokenturn app set %s",
			environment, rotation.ErrNoApplication, name, environment)
	case errors.Is(err, rotation.ErrSecretDeleted):
		return token.Secret{}, fmt.Errorf("environment %s: %w: secret %s is scheduled for deletion; restore it, "+
			"or, after the deletion, store them again with: tokenturn app set %s",
			environment, rotation.ErrNoApplication, name, environment)
	case err != nil:
		return token.Secret{}, fmt.Errorf("reading the app credentials of %s from secret %s: %w", environment, name, err)
	}
	return token.NewSecret(aws.ToString(out.SecretString)), nil
}

// Set stores an environment's app credentials, replacing earlier ones, if they can be
// parsed. The SDK makes a fresh version id per call: with an id derived from the content,
// setting an earlier value again would do nothing.
func (a *Applications) Set(ctx context.Context, environment string, value token.Secret) error {
	name := a.naming.application(environment)
	if _, err := a.parse(environment, value); err != nil {
		return fmt.Errorf("storing the app credentials of %s: %w", environment, err)
	}
	_, err := a.client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: &name,
		SecretString: aws.String(value.Reveal()), VersionStages: []string{current}})
	if err = translate(err); errors.Is(err, rotation.ErrNoSecret) {
		_, err = a.client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: &name,
			SecretString: aws.String(value.Reveal()),
			KmsKeyId:     a.naming.kmsKey(), Description: aws.String("Procore app credentials of tokenturn for " + environment),
			Tags: a.naming.tags(map[string]string{environmentTag: environment})})
		err = translate(err)
	}
	if err != nil {
		return fmt.Errorf("storing the app credentials of %s in secret %s: %w", environment, name, err)
	}
	return nil
}
