package secretsmanager

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// ProtectionClient is the part of *secretsmanager.Client that Protections uses. Only an
// operator has these permissions, none of the functions.
type ProtectionClient interface {
	GetResourcePolicy(context.Context, *secretsmanager.GetResourcePolicyInput,
		...func(*secretsmanager.Options)) (*secretsmanager.GetResourcePolicyOutput, error)
	PutResourcePolicy(context.Context, *secretsmanager.PutResourcePolicyInput,
		...func(*secretsmanager.Options)) (*secretsmanager.PutResourcePolicyOutput, error)
}

var _ ProtectionClient = (*secretsmanager.Client)(nil)

// Protections attaches the policy of a Guard to connections' secrets. It is safe for
// concurrent use.
type Protections struct {
	client ProtectionClient
	naming Naming
}

// NewProtections makes no call.
func NewProtections(client ProtectionClient, naming Naming) *Protections {
	return &Protections{client, naming}
}

// ErrOtherPolicy: the secret has a policy that tokenturn did not make.
var ErrOtherPolicy = errors.New("the secret has a resource policy that tokenturn did not make")

// Attach attaches the guard's policy to the secret of c. ErrOtherPolicy if another policy
// would be lost; rotation.ErrNoSecret, rotation.ErrSecretDeleted.
func (p *Protections) Attach(ctx context.Context, c token.Connection, g Guard) error {
	text, err := g.Policy()
	if err != nil {
		return err
	}
	there, err := p.attached(ctx, c)
	if err != nil {
		return err
	}
	name := aws.String(p.naming.connection(c))
	if there != "" && !isOurs(there) {
		return fmt.Errorf("%w: secret %s", ErrOtherPolicy, *name)
	}
	_, err = p.client.PutResourcePolicy(ctx, &secretsmanager.PutResourcePolicyInput{SecretId: name, ResourcePolicy: &text,
		BlockPublicPolicy: aws.Bool(true)})
	if err := translate(err); err != nil {
		return fmt.Errorf("attaching the resource policy to the secret of %s: %w", c, err)
	}
	return nil
}

// Protected reports whether the secret of c has a resource policy, made by tokenturn or not.
// rotation.ErrNoSecret, rotation.ErrSecretDeleted.
func (p *Protections) Protected(ctx context.Context, c token.Connection) (bool, error) {
	there, err := p.attached(ctx, c)
	return there != "", err
}

// attached returns the resource policy of the secret of c; empty if it has none.
func (p *Protections) attached(ctx context.Context, c token.Connection) (string, error) {
	out, err := p.client.GetResourcePolicy(ctx, &secretsmanager.GetResourcePolicyInput{
		SecretId: aws.String(p.naming.connection(c))})
	if err := translate(err); err != nil {
		return "", fmt.Errorf("reading the resource policy of the secret of %s: %w", c, err)
	}
	return aws.ToString(out.ResourcePolicy), nil
}
