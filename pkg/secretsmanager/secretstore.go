package secretsmanager

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"golang.org/x/time/rate"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// PutSecretValue, UpdateSecretVersionStage and UpdateSecret share 50 calls a
// second per account and Region, fixed (Secrets Manager quotas). A fifth is left to other
// programs; with the burst, the first second also stays within the quota.
const (
	writesPerSecond = 40
	writeBurst      = 10
)

// SecretStore is a rotation.SecretStore. It is safe for concurrent use; its writes share
// one limiter, so a process should have one SecretStore.
type SecretStore struct {
	client  Client
	naming  Naming
	limiter *rate.Limiter
}

var _ rotation.SecretStore = (*SecretStore)(nil)

// NewSecretStore makes no call.
func NewSecretStore(client Client, naming Naming) *SecretStore {
	return &SecretStore{client, naming, rate.NewLimiter(writesPerSecond, writeBurst)}
}

// Current implements rotation.SecretStore. The request names the label, because only
// then do all implementations of the service return the same version.
func (v *SecretStore) Current(ctx context.Context, c token.Connection) (rotation.Version, error) {
	version, err := v.get(ctx, c, &secretsmanager.GetSecretValueInput{VersionStage: aws.String(current)})
	if err != nil {
		return rotation.Version{}, fmt.Errorf("reading the current version of %s: %w", c, err)
	}
	return version, nil
}

// Version implements rotation.SecretStore.
func (v *SecretStore) Version(ctx context.Context, c token.Connection, id string) (rotation.Version, error) {
	version, err := v.get(ctx, c, &secretsmanager.GetSecretValueInput{VersionId: &id})
	if err != nil {
		return rotation.Version{}, fmt.Errorf("reading version %s of %s: %w", id, c, err)
	}
	return version, nil
}

func (v *SecretStore) get(ctx context.Context, c token.Connection,
	in *secretsmanager.GetSecretValueInput) (rotation.Version, error) {
	in.SecretId = aws.String(v.naming.connection(c))
	out, err := v.client.GetSecretValue(ctx, in)
	meaning := translate(err)
	if errors.Is(meaning, rotation.ErrNoSecret) {
		meaning = v.lacking(ctx, c, err)
	}
	if meaning != nil {
		return rotation.Version{}, meaning
	}
	return rotation.Version{ID: aws.ToString(out.VersionId), Value: token.NewSecret(aws.ToString(out.SecretString))}, nil
}

// lacking distinguishes a missing secret from a missing version.
func (v *SecretStore) lacking(ctx context.Context, c token.Connection, cause error) error {
	if _, err := v.list(ctx, c); err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", rotation.ErrNoVersion, cause)
}

// Versions implements rotation.SecretStore.
func (v *SecretStore) Versions(ctx context.Context, c token.Connection) ([]rotation.VersionInfo, error) {
	versions, err := v.list(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("listing the versions of %s: %w", c, err)
	}
	// A secret that is scheduled for deletion still lists its versions.
	if _, err := v.Current(ctx, c); err != nil && !errors.Is(err, rotation.ErrNoVersion) {
		return nil, fmt.Errorf("listing the versions of %s: %w", c, err)
	}
	return versions, nil
}

func (v *SecretStore) list(ctx context.Context, c token.Connection) ([]rotation.VersionInfo, error) {
	pages := secretsmanager.NewListSecretVersionIdsPaginator(v.client, &secretsmanager.ListSecretVersionIdsInput{
		SecretId: aws.String(v.naming.connection(c)), IncludeDeprecated: aws.Bool(true)})
	var versions []rotation.VersionInfo
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate(err)
		}
		for _, e := range page.Versions {
			versions = append(versions, rotation.VersionInfo{ID: aws.ToString(e.VersionId),
				CreatedAt: aws.ToTime(e.CreatedDate), Labels: e.VersionStages})
		}
	}
	return versions, nil
}

// Create implements rotation.SecretStore.
func (v *SecretStore) Create(ctx context.Context, c token.Connection, id string, value token.Secret) error {
	err := v.limited(ctx, func() error {
		_, err := v.client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{
			Name: aws.String(v.naming.connection(c)), ClientRequestToken: &id, SecretString: aws.String(value.Reveal()),
			KmsKeyId: v.naming.kmsKey(), Description: aws.String("Procore access token of " + c.String() +
				", kept fresh by tokenturn"),
			Tags: v.naming.tags(map[string]string{connectionTag: c.String(), environmentTag: c.Environment})})
		return err
	})
	// The service also answers this if the same version was made before and the label has
	// moved on.
	if errors.Is(err, rotation.ErrVersionTaken) {
		there, readErr := v.Version(ctx, c, id)
		switch {
		case readErr == nil && there.Value == value:
			return nil
		case readErr != nil && !errors.Is(readErr, rotation.ErrNoVersion):
			err = readErr
		}
	}
	if err != nil {
		return fmt.Errorf("creating the secret of %s: %w", c, err)
	}
	return nil
}

// Put implements rotation.SecretStore.
func (v *SecretStore) Put(ctx context.Context, c token.Connection, id string, value token.Secret) error {
	err := v.limited(ctx, func() error {
		_, err := v.client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{
			SecretId: aws.String(v.naming.connection(c)), ClientRequestToken: &id, SecretString: aws.String(value.Reveal()),
			VersionStages: []string{pending}})
		return err
	})
	if err != nil {
		return fmt.Errorf("putting version %s of %s: %w", id, c, err)
	}
	return nil
}

// Promote implements rotation.SecretStore. The service refuses to repeat a move that
// has taken effect, so a refusal alone says nothing; the labels decide.
func (v *SecretStore) Promote(ctx context.Context, c token.Connection, id, replaces string) error {
	err := v.limited(ctx, func() error {
		_, err := v.client.UpdateSecretVersionStage(ctx, &secretsmanager.UpdateSecretVersionStageInput{
			SecretId: aws.String(v.naming.connection(c)), VersionStage: aws.String(current),
			MoveToVersionId: &id, RemoveFromVersionId: &replaces})
		return err
	})
	if refusesMove(err) {
		err = v.whyNotMoved(ctx, c, id, replaces, err)
	}
	if err != nil {
		return fmt.Errorf("promoting version %s of %s: %w", id, c, err)
	}
	return nil
}

func (v *SecretStore) whyNotMoved(ctx context.Context, c token.Connection, id, replaces string, cause error) error {
	versions, err := v.list(ctx, c)
	if err != nil {
		return err
	}
	there, labelled := false, ""
	for _, version := range versions {
		there = there || version.ID == id
		if slices.Contains(version.Labels, current) {
			labelled = version.ID
		}
	}
	switch {
	case labelled == id:
		return nil
	case !there:
		return rotation.ErrNoVersion
	case labelled != replaces:
		return rotation.ErrNotCurrent
	}
	return cause // by the labels it should have moved; the list may be stale
}

// limited makes a write when the rate limiter allows it.
func (v *SecretStore) limited(ctx context.Context, write func() error) error {
	if err := v.limiter.Wait(ctx); err != nil {
		return fmt.Errorf("waiting for the write rate limit of Secrets Manager: %w", err)
	}
	return translate(write())
}
