package secretsmanager_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// errReset is an error that the SDK treats as a broken network connection.
var errReset = syscall.ECONNRESET

func applications(p play) (*secretsmanager.Applications, *awstest.Script) {
	script := awstest.Play(p)
	return secretsmanager.NewApplications(sdk.NewFromConfig(script.Config()), naming, parse), script
}

func parse(environment string, value token.Secret) (rotation.Application, error) {
	if value.IsZero() {
		return rotation.Application{}, errors.New("nothing there")
	}
	return rotation.Application{Environment: environment, ClientSecret: value}, nil
}

func TestApplicationIsReadByLabelAndParsed(t *testing.T) {
	a, script := applications(give(map[string]any{"SecretString": canary}))
	app, err := a.Application(t.Context(), "sandbox")
	if err != nil || app.Environment != "sandbox" || app.ClientSecret.Reveal() != canary {
		t.Errorf("got %v, %v", app, err)
	}
	if in := script.Calls()[0].Input; in["SecretId"] != "tt/app/sandbox" || in["VersionStage"] != "AWSCURRENT" {
		t.Errorf("asked for %v", in)
	}
}

func TestMissingApplicationSaysWhatToDo(t *testing.T) {
	for code, missing := range map[string]bool{"ResourceNotFoundException": true, "InvalidRequestException": true,
		"AccessDeniedException": false} {
		a, _ := applications(refuse(code))
		_, err := a.Application(t.Context(), "sandbox")
		if err == nil || errors.Is(err, rotation.ErrNoApplication) != missing || !strings.Contains(err.Error(),
			"tt/app/sandbox") {
			t.Errorf("%s: %v", code, err)
		}
		if missing && !strings.Contains(err.Error(), "tokenturn app set sandbox") {
			t.Errorf("%s does not name the command: %v", code, err)
		}
	}
	a, _ := applications(give(map[string]any{"SecretString": ""}))
	if _, err := a.Application(t.Context(), "sandbox"); err == nil || !strings.Contains(err.Error(), "nothing there") {
		t.Errorf("an unusable value: %v", err)
	}
}

func TestSetPutsOrCreates(t *testing.T) {
	a, script := applications(give(nil))
	if err := a.Set(t.Context(), "sandbox", value); err != nil {
		t.Fatal(err)
	}
	put := script.Calls()[0].Input
	if put["SecretId"] != "tt/app/sandbox" || put["SecretString"] != value.Reveal() ||
		len(put["ClientRequestToken"].(string)) < 32 {
		t.Errorf("put %v", put)
	}
	a, script = applications(by(map[string]play{"PutSecretValue": refuse("ResourceNotFoundException"),
		"CreateSecret": give(nil)}))
	if err := a.Set(t.Context(), "sandbox", value); err != nil {
		t.Fatal(err)
	}
	if made := script.Calls()[1].Input; made["Name"] != "tt/app/sandbox" || made["SecretString"] != value.Reveal() ||
		made["KmsKeyId"] != "alias/vault" {
		t.Errorf("created %v", made)
	}
}

func TestSetRefusesWhatCannotBeRead(t *testing.T) {
	a, script := applications(give(nil))
	if err := a.Set(t.Context(), "sandbox", token.Secret{}); err == nil || len(script.Calls()) > 0 {
		t.Errorf("got %v after %v", err, script.Operations())
	}
	a, _ = applications(refuse("AccessDeniedException"))
	if err := a.Set(t.Context(), "sandbox", value); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("got %v", err)
	}
}
