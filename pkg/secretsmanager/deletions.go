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

// DeletionClient is the part of *secretsmanager.Client that Deletions uses. It is separate
// from Client because only an operator has these permissions, none of the functions.
type DeletionClient interface {
	DeleteSecret(context.Context, *secretsmanager.DeleteSecretInput,
		...func(*secretsmanager.Options)) (*secretsmanager.DeleteSecretOutput, error)
	RestoreSecret(context.Context, *secretsmanager.RestoreSecretInput,
		...func(*secretsmanager.Options)) (*secretsmanager.RestoreSecretOutput, error)
}

var _ DeletionClient = (*secretsmanager.Client)(nil)

// Deletions schedules the deletion of connections' secrets, and cancels it. It is safe for
// concurrent use.
type Deletions struct {
	client DeletionClient
	naming Naming
}

// NewDeletions makes no call.
func NewDeletions(client DeletionClient, naming Naming) *Deletions { return &Deletions{client, naming} }

// Schedule makes the secret of c unreadable at once and deletes it after the recovery
// time, which in Secrets Manager is 7 to 30 whole days. It returns the time of the
// deletion; zero if the deletion was scheduled before, because the service then does not
// return it. rotation.ErrNoSecret.
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

// Cancel restores the secret of c with all its versions. A secret that was not scheduled
// for deletion is not an error. rotation.ErrNoSecret.
func (d *Deletions) Cancel(ctx context.Context, c token.Connection) error {
	_, err := d.client.RestoreSecret(ctx, &secretsmanager.RestoreSecretInput{SecretId: aws.String(d.naming.connection(c))})
	if err = translate(err); err != nil {
		return fmt.Errorf("restoring the secret of %s: %w", c, err)
	}
	return nil
}
