package secretsmanager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// DeletionClient is what Deletions use of *secretsmanager.Client. It is apart
// from Client because only an operator has these rights, none of the functions.
type DeletionClient interface {
	DeleteSecret(context.Context, *secretsmanager.DeleteSecretInput,
		...func(*secretsmanager.Options)) (*secretsmanager.DeleteSecretOutput, error)
	RestoreSecret(context.Context, *secretsmanager.RestoreSecretInput,
		...func(*secretsmanager.Options)) (*secretsmanager.RestoreSecretOutput, error)
}

var _ DeletionClient = (*secretsmanager.Client)(nil)

// Deletions schedule the deletion of connections' secrets, and take that back. They
// are safe for concurrent use.
type Deletions struct {
	client DeletionClient
	naming Naming
}

// NewDeletions makes no call.
func NewDeletions(client DeletionClient, naming Naming) *Deletions { return &Deletions{client, naming} }

// Schedule takes the secret of c away from its readers at once and for good
// after the recovery time, of which Secrets Manager takes whole days from 7 to
// 30. It returns when that will be; zero if it was scheduled before, since the
// service then tells no more. rotation.ErrNoSecret.
func (d *Deletions) Schedule(ctx context.Context, c token.Connection, recovery time.Duration) (at time.Time,
	err error) {
	out, err := d.client.DeleteSecret(ctx, &secretsmanager.DeleteSecretInput{SecretId: aws.String(d.naming.connection(c)),
		RecoveryWindowInDays: aws.Int64(int64(recovery / (24 * time.Hour)))})
	switch err = translate(err); {
	case errors.Is(err, rotation.ErrSecretDeleted):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("scheduling the deletion of the secret of %s: %w", c, err)
	}
	return aws.ToTime(out.DeletionDate), nil
}

// Cancel gives the secret of c back with all its versions. That it was not
// scheduled for deletion is no error. rotation.ErrNoSecret.
func (d *Deletions) Cancel(ctx context.Context, c token.Connection) error {
	_, err := d.client.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: aws.String(d.naming.connection(c))})
	if err = translate(err); err != nil {
		return fmt.Errorf("restoring the secret of %s: %w", c, err)
	}
	return nil
}
