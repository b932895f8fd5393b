// Package secretsmanager keeps what consumers read, one secret per connection, and
// the app credentials of each environment in AWS Secrets Manager:
//
//	<prefix>/connection/<environment>/<name>   the document of package token
//	<prefix>/app/<environment>                 what the developer portal registered
//
// The actions needed are GetSecretValue, ListSecretVersionIds, PutSecretValue,
// UpdateSecretVersionStage, CreateSecret and, because new secrets carry tags,
// TagResource; for Deletions, which only an operator makes, DeleteSecret and
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

// Client is what the package uses of *secretsmanager.Client. Its configuration
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

// Naming says where secrets are and what new ones are given.
type Naming struct {
	Prefix string // of every name, without a slash at the end
	Stack  string // id of the installation, for the tag tokenturn:stack
	KMSKey string // id, ARN or alias that encrypts new secrets; empty: the account's aws/secretsmanager
}

// Tags of new secrets, so that a policy can be written in terms of them.
const (
	stackTag       = "tokenturn:stack"
	connectionTag  = "tokenturn:connection"
	environmentTag = "tokenturn:environment"
)

func (n Naming) connection(c token.Connection) string { return n.Prefix + "/connection/" + c.String() }

func (n Naming) application(environment string) string { return n.Prefix + "/app/" + environment }

// tags are the stack's and the given ones, in one order for one content.
func (n Naming) tags(more map[string]string) []types.Tag {
	tags := []types.Tag{{Key: aws.String(stackTag), Value: aws.String(n.Stack)}}
	for _, name := range slices.Sorted(maps.Keys(more)) {
		tags = append(tags, types.Tag{Key: aws.String(name), Value: aws.String(more[name])})
	}
	return tags
}

// kmsKey leaves the choice to Secrets Manager where there is none of ours.
func (n Naming) kmsKey() *string {
	if n.KMSKey == "" {
		return nil
	}
	return &n.KMSKey
}

const current, pending = "AWSCURRENT", "AWSPENDING"

// meanings is what the service's codes mean for the calls made here. A message is
// never looked at: AWS has changed them. ResourceNotFoundException is also
// the answer for a version that is not there, see lacking.
var meanings = map[string]error{
	"ResourceNotFoundException": rotation.ErrNoSecret,
	"ResourceExistsException":   rotation.ErrVersionTaken,
	"InvalidRequestException":   rotation.ErrSecretDeleted, // "not valid for the current state of the resource"
	"LimitExceededException":    rotation.ErrVersionLimit,
}

// translate puts the meaning of an error before it. An error without a meaning stays as it is.
func translate(err error) error {
	if e, ok := errors.AsType[smithy.APIError](err); ok && meanings[e.ErrorCode()] != nil {
		return fmt.Errorf("%w: %w", meanings[e.ErrorCode()], err)
	}
	return err
}

// refusesMove reports whether the service turned a label's move down, having
// moved nothing: the wrong version named, or one that is not there. Which code
// AWS gives for the latter is not documented.
func refusesMove(err error) bool {
	e, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains([]string{"InvalidParameterException", "ResourceNotFoundException", "ValidationException"},
		e.ErrorCode())
}
