//go:build conformance

package secretsmanager_test

import (
	"crypto/rand"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// fresh is a naming under which the server has nothing yet.
func fresh() secretsmanager.Naming {
	return secretsmanager.Naming{Prefix: "test-" + rand.Text(), Stack: "stack-a"}
}

func serverSecretStore(t *testing.T, transport http.RoundTripper) rotation.SecretStore {
	return secretsmanager.NewSecretStore(sdk.NewFromConfig(awstest.Server(t, transport)), fresh())
}

func TestSecretStoreKeepsTheContract(t *testing.T) {
	rotationtest.TestSecretStore(t, func(t *testing.T) rotation.SecretStore {
		return serverSecretStore(t,
			http.DefaultTransport)
	})
}

func TestSecretStoreKeepsTheContractWhenRequestsAreRepeated(t *testing.T) {
	rotationtest.TestSecretStoreRepeats(t, serverSecretStore)
}

func TestDeletedAndEmptySecrets(t *testing.T) {
	client, naming := sdk.NewFromConfig(awstest.Server(t, http.DefaultTransport)), fresh()
	v, ctx := secretsmanager.NewSecretStore(client, naming), t.Context()
	if err := v.Create(ctx, acme, first, value); err != nil {
		t.Fatal(err)
	}
	bin := secretsmanager.NewDeletions(client, naming)
	if err := bin.Cancel(ctx, acme); err != nil {
		t.Errorf("restoring what was not deleted: %v", err)
	}
	for range 2 {
		if _, err := bin.Schedule(ctx, acme, 7*24*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	_, currentErr := v.Current(ctx, acme)
	_, versionErr := v.Version(ctx, acme, first)
	_, versionsErr := v.Versions(ctx, acme)
	for what, err := range map[string]error{"Current": currentErr, "Version": versionErr, "Versions": versionsErr,
		"Create": v.Create(ctx, acme, second, value), "Put": v.Put(ctx, acme, second, value), "Promote": v.Promote(ctx, acme,
			second, first)} {
		if !errors.Is(err, rotation.ErrSecretDeleted) {
			t.Errorf("%s: got %v, want ErrSecretDeleted", what, err)
		}
	}

	for range 2 {
		if err := bin.Cancel(ctx, acme); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := v.Current(ctx, acme); err != nil || got.ID != first || got.Value != value {
		t.Errorf("restored: %v, %v", got.ID, err)
	}
	nobody := token.Connection{Environment: "sandbox", Name: "nobody"}
	if _, err := bin.Schedule(ctx, nobody, 7*24*time.Hour); !errors.Is(err, rotation.ErrNoSecret) {
		t.Errorf("Schedule of nothing: got %v, want ErrNoSecret", err)
	}
	if err := bin.Cancel(ctx, nobody); !errors.Is(err, rotation.ErrNoSecret) {
		t.Errorf("Cancel of nothing: got %v, want ErrNoSecret", err)
	}

	empty := token.Connection{Environment: "sandbox", Name: "empty"}
	_, err := client.CreateSecret(ctx, &sdk.CreateSecretInput{Name: aws.String(naming.Prefix + "/connection/" +
		empty.String())})
	t.Log("creating:", err)
	if _, err := v.Current(ctx, empty); !errors.Is(err, rotation.ErrNoVersion) {
		t.Errorf("Current of a secret without a version: got %v, want ErrNoVersion", err)
	}
	if err := v.Put(ctx, empty, first, value); err != nil {
		t.Errorf("Put into a secret without a version: %v", err)
	}
}

func TestApplicationsAreStoredAgainEachTime(t *testing.T) {
	a := secretsmanager.NewApplications(sdk.NewFromConfig(awstest.Server(t, http.DefaultTransport)), fresh(), parse)
	if _, err := a.Application(t.Context(), "sandbox"); !errors.Is(err, rotation.ErrNoApplication) {
		t.Errorf("before Set: got %v, want ErrNoApplication", err)
	}
	for _, text := range []string{"one", "two", "one"} { // setting an earlier value again is also a change
		if err := a.Set(t.Context(), "sandbox", token.NewSecret(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := a.Value(t.Context(), "sandbox"); err != nil || got.Reveal() != text {
			t.Errorf("after Set of %q: got %q, %v", text, got.Reveal(), err)
		}
	}
}
