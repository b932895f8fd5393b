package secretsmanager_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
)

const day = 24 * time.Hour

func deletions(p play) (*secretsmanager.Deletions, *awstest.Script) {
	script := awstest.Play(p)
	return secretsmanager.NewDeletions(sdk.NewFromConfig(script.Config()), naming), script
}

func TestDeletionRequests(t *testing.T) {
	d, script := deletions(by(map[string]play{"DeleteSecret": give(map[string]any{"DeletionDate": 1.7e9}),
		"RestoreSecret": give(nil)}))
	at, err := d.Schedule(t.Context(), acme, 9*day)
	if err != nil || !at.Equal(time.Unix(1.7e9, 0)) {
		t.Errorf("Schedule: %v, %v", at, err)
	}
	if err := d.Cancel(t.Context(), acme); err != nil {
		t.Error(err)
	}
	want := []awstest.Call{{Operation: "DeleteSecret", Input: map[string]any{"SecretId": name,
		"RecoveryWindowInDays": 9.0}},
		{Operation: "RestoreSecret", Input: map[string]any{"SecretId": name}}}
	if got := script.Calls(); !reflect.DeepEqual(got, want) {
		t.Errorf("calls\n%v, want\n%v", got, want)
	}
}

func TestDeletionRefusals(t *testing.T) {
	for code, want := range map[string]struct{ schedule, cancel error }{
		"ResourceNotFoundException": {rotation.ErrNoSecret, rotation.ErrNoSecret},
		"InvalidRequestException":   {nil, rotation.ErrSecretDeleted}, // scheduled already
	} {
		d, _ := deletions(refuse(code))
		at, err := d.Schedule(t.Context(), acme, 7*day)
		if !errors.Is(err, want.schedule) || (err == nil) != (want.schedule == nil) || !at.IsZero() {
			t.Errorf("%s: Schedule: %v, %v", code, at, err)
		}
		if err := d.Cancel(t.Context(), acme); !errors.Is(err, want.cancel) {
			t.Errorf("%s: Cancel: %v", code, err)
		}
	}
	d, _ := deletions(lose)
	if _, err := d.Schedule(t.Context(), acme, 7*day); err == nil || errors.Is(err, rotation.ErrNoSecret) {
		t.Errorf("without an answer: %v", err)
	}
}
