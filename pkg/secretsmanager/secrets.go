// Package secretsmanager keeps the secrets that readers see, one per connection, and the
// app credentials of each environment in AWS Secrets Manager:
//
//	<prefix>/connection/<environment>/<name>   the document of package token
//	<prefix>/app/<environment>                 the app as the Developer Portal registered it
//
// It needs the actions GetSecretValue, ListSecretVersionIds, PutSecretValue,
// UpdateSecretVersionStage, CreateSecret and, because new secrets carry tags,
// TagResource; for Deletions, which only an operator uses, DeleteSecret and
// RestoreSecret.
package secretsmanager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Client is the part of *secretsmanager.Client that the package uses. Its configuration
// must bound the time of a call.
type Client interface {
	GetSecretValue(context.Context, *secretsmanager.GetSecretValueInput,
		...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error)
	ListSecretVersionIds(context.Context, *secretsmanager.ListSecretVersionIdsInput,
		...func(*secretsmanager.Options)) (*secretsmanager.ListSecretVersionIdsOutput, error)
	CreateSecret(context.Context, *secretsmanager.CreateSecretInput,
		...func(*secretsmanager.Options)) (*secretsmanager.CreateSecretOutput, error)
	PutSecretValue(context.Context, *secretsmanager.PutSecretValueInput,
		...func(*secretsmanager.Options)) (*secretsmanager.PutSecretValueOutput, error)
	UpdateSecretVersionStage(context.Context, *secretsmanager.UpdateSecretVersionStageInput,
		...func(*secretsmanager.Options)) (*secretsmanager.UpdateSecretVersionStageOutput, error)
}

var _ Client = (*secretsmanager.Client)(nil)

// Naming has the names of secrets and the attributes of new ones.
type Naming struct {
	Prefix string // of every name, without a slash at the end
	Stack  string // id of the installation, for the tag tokenturn:stack
	KMSKey string // id, ARN or alias that encrypts new secrets; empty: the account's aws/secretsmanager
}

// Tags of new secrets, for use in policies.
const (
	stackTag       = "tokenturn:stack"
	connectionTag  = "tokenturn:connection"
	environmentTag = "tokenturn:environment"
)

func (n Naming) connection(c token.Connection) string { return n.Prefix + "/connection/" + c.String() }

func (n Naming) application(environment string) string { return n.Prefix + "/app/" + environment }

// tags returns the stack's tag and the given ones, in a fixed order.
func (n Naming) tags(more map[string]string) []types.Tag {
	tags := []types.Tag{{Key: aws.String(stackTag), Value: aws.String(n.Stack)}}
	for _, name := range slices.Sorted(maps.Keys(more)) {
		tags = append(tags, types.Tag{Key: aws.String(name), Value: aws.String(more[name])})
	}
	return tags
}

// kmsKey returns nil, which leaves the choice to Secrets Manager, if no key is configured.
func (n Naming) kmsKey() *string {
	if n.KMSKey == "" {
		return nil
	}
	return &n.KMSKey
}

const current, pending = "AWSCURRENT", "AWSPENDING"

// meanings translates the service's codes for the calls of this package. Messages are not
// used, because AWS has changed them. ResourceNotFoundException is also the answer for a
// missing version; see lacking.
var meanings = map[string]error{
	"ResourceNotFoundException": rotation.ErrNoSecret,
	"ResourceExistsException":   rotation.ErrVersionTaken,
	"InvalidRequestException":   rotation.ErrSecretDeleted, // "not valid for the current state of the resource"
	"LimitExceededException":    rotation.ErrVersionLimit,
}

// translate puts the meaning of an error before it. An error without a meaning stays unchanged.
func translate(err error) error {
	if e, ok := errors.AsType[smithy.APIError](err); ok && meanings[e.ErrorCode()] != nil {
		return fmt.Errorf("%w: %w", meanings[e.ErrorCode()], err)
	}
	return err
}

// refusesMove reports whether the service refused to move a label and moved nothing: the
// request named the wrong version, or a missing one. AWS does not document the code for
// the latter.
func refusesMove(err error) bool {
	e, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains([]string{"InvalidParameterException", "ResourceNotFoundException", "ValidationException"},
		e.ErrorCode())
}
