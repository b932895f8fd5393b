package secretsmanager

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// ProtectionClient is what Protections use of *secretsmanager.Client. Only an
// operator has these rights, none of the functions.
type ProtectionClient interface {
	GetResourcePolicy(context.Context, *secretsmanager.GetResourcePolicyInput,
		...func(*secretsmanager.Options)) (*secretsmanager.GetResourcePolicyOutput, error)
	PutResourcePolicy(context.Context, *secretsmanager.PutResourcePolicyInput,
		...func(*secretsmanager.Options)) (*secretsmanager.PutResourcePolicyOutput, error)
}

var _ ProtectionClient = (*secretsmanager.Client)(nil)

// Protections attach the policy of a Guard to connections' secrets. They are
// safe for concurrent use.
type Protections struct {
	client ProtectionClient
	naming Naming
}

// NewProtections makes no call.
func NewProtections(client ProtectionClient, naming Naming) *Protections {
	return &Protections{client, naming}
}

// ErrOtherPolicy: the secret has a policy that was not made here.
var ErrOtherPolicy = errors.New("the secret has a resource policy of somebody else's making")

// Attach makes the guard's policy that of the secret of c. ErrOtherPolicy if
// there is one that would be lost; rotation.ErrNoSecret, rotation.ErrSecretDeleted.
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

// Protected reports whether the secret of c has a resource policy, of whosever making.
// rotation.ErrNoSecret, rotation.ErrSecretDeleted.
func (p *Protections) Protected(ctx context.Context, c token.Connection) (bool, error) {
	there, err := p.attached(ctx, c)
	return there != "", err
}

// attached is the resource policy of the secret of c; empty if it has none.
func (p *Protections) attached(ctx context.Context, c token.Connection) (string, error) {
	out, err := p.client.GetResourcePolicy(ctx, &secretsmanager.GetResourcePolicyInput{
		SecretId: aws.String(p.naming.connection(c))})
	if err := translate(err); err != nil {
		return "", fmt.Errorf("reading the resource policy of the secret of %s: %w", c, err)
	}
	return aws.ToString(out.ResourcePolicy), nil
}
