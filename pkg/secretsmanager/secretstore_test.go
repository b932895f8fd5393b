package secretsmanager_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	canary = "canary-3f1c9d6b"
	name   = "tt/connection/sandbox/acme"
	first  = "111111111111111111111111111111111111111111111111"
	second = "222222222222222222222222222222222222222222222222"
)

var (
	acme   = token.Connection{Environment: "sandbox", Name: "acme"}
	value  = token.NewSecret(`{"access_token":"` + canary + `"}`)
	naming = secretsmanager.Naming{Prefix: "tt", Stack: "stack-a", KMSKey: "alias/vault"}
)

type play = func(awstest.Call) (any, error)

func secrets(p play) (*secretsmanager.SecretStore, *awstest.Script) {
	script := awstest.Play(p)
	return secretsmanager.NewSecretStore(sdk.NewFromConfig(script.Config()), naming), script
}

// by answers each operation with its own function.
func by(operations map[string]play) play {
	return func(c awstest.Call) (any, error) { return operations[c.Operation](c) }
}

func give(output any) play { return func(awstest.Call) (any, error) { return output, nil } }

func refuse(code string) play {
	return func(awstest.Call) (any, error) { return nil, awstest.Fault{Code: code} }
}

func lose(awstest.Call) (any, error) { return nil, errors.New("no network") }

// labels is the answer of ListSecretVersionIds with AWSCURRENT on the first id.
func labels(ids ...string) play {
	var versions []map[string]any
	for i, id := range ids {
		version := map[string]any{"VersionId": id, "CreatedDate": 1.7e9}
		if i == 0 {
			version["VersionStages"] = []string{"AWSCURRENT"}
		}
		versions = append(versions, version)
	}
	return give(map[string]any{"Versions": versions})
}

func TestRequestsAreShapedAsTheProtocolNeeds(t *testing.T) {
	v, script := secrets(by(map[string]play{
		"CreateSecret":             give(nil),
		"PutSecretValue":           give(nil),
		"UpdateSecretVersionStage": give(nil),
		"GetSecretValue":           give(map[string]any{"VersionId": first, "SecretString": value.Reveal()}),
	}))
	ctx := t.Context()
	for _, err := range []error{v.Create(ctx, acme, first, value), v.Put(ctx, acme, second, value),
		v.Promote(ctx, acme, second, first)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, read := range []func() (rotation.Version, error){
		func() (rotation.Version, error) { return v.Current(ctx, acme) },
		func() (rotation.Version, error) { return v.Version(ctx, acme, first) },
	} {
		if got, err := read(); err != nil || got != (rotation.Version{ID: first, Value: value}) {
			t.Errorf("read %v, %v", got, err)
		}
	}
	tag := func(key, value string) any { return map[string]any{"Key": key, "Value": value} }
	want := []awstest.Call{
		{Operation: "CreateSecret", Input: map[string]any{"Name": name, "ClientRequestToken": first,
			"SecretString": value.Reveal(), "KmsKeyId": "alias/vault",
			"Description": "Procore access token of sandbox/acme, kept fresh by tokenturn",
			"Tags": []any{tag("tokenturn:stack", "stack-a"), tag("tokenturn:connection", "sandbox/acme"),
				tag("tokenturn:environment", "sandbox")}}},
		{Operation: "PutSecretValue", Input: map[string]any{"SecretId": name, "ClientRequestToken": second,
			"SecretString":  value.Reveal(),
			"VersionStages": []any{"AWSPENDING"}}},
		{Operation: "UpdateSecretVersionStage", Input: map[string]any{"SecretId": name, "VersionStage": "AWSCURRENT",
			"MoveToVersionId": second, "RemoveFromVersionId": first}},
		{Operation: "GetSecretValue", Input: map[string]any{"SecretId": name, "VersionStage": "AWSCURRENT"}},
		{Operation: "GetSecretValue", Input: map[string]any{"SecretId": name, "VersionId": first}},
	}
	for i, call := range script.Calls() {
		if !reflect.DeepEqual(call, want[i]) {
			t.Errorf("request %d\n got %v\nwant %v", i, call, want[i])
		}
	}
}

// known are the errors that callers distinguish.
var known = []error{rotation.ErrNoSecret, rotation.ErrNoVersion, rotation.ErrVersionTaken, rotation.ErrNotCurrent,
	rotation.ErrSecretDeleted, rotation.ErrVersionLimit}

func TestErrorsMeanWhatTheServiceMeans(t *testing.T) {
	current := func(v *secretsmanager.SecretStore) error { _, err := v.Current(t.Context(), acme); return err }
	byID := func(v *secretsmanager.SecretStore) error { _, err := v.Version(t.Context(), acme, first); return err }
	versions := func(v *secretsmanager.SecretStore) error { _, err := v.Versions(t.Context(), acme); return err }
	create := func(v *secretsmanager.SecretStore) error { return v.Create(t.Context(), acme, first, value) }
	put := func(v *secretsmanager.SecretStore) error { return v.Put(t.Context(), acme, first, value) }
	promote := func(v *secretsmanager.SecretStore) error { return v.Promote(t.Context(), acme, second, first) }
	missing := refuse("ResourceNotFoundException")
	deleted := refuse("InvalidRequestException")
	stored := func(s string) play { return give(map[string]any{"VersionId": first, "SecretString": s}) }

	for _, test := range []struct {
		what string
		call func(*secretsmanager.SecretStore) error
		play map[string]play
		want error // nil: some other error
		done bool  // no error at all
	}{
		{"current, no secret", current, map[string]play{"GetSecretValue": missing, "ListSecretVersionIds": missing},
			rotation.ErrNoSecret, false},
		{"current, no version", current, map[string]play{"GetSecretValue": missing, "ListSecretVersionIds": labels()},
			rotation.ErrNoVersion, false},
		{"current, reason unknown", current, map[string]play{"GetSecretValue": missing,
			"ListSecretVersionIds": refuse("AccessDeniedException")}, nil, false},
		{"current, deleted", current, map[string]play{"GetSecretValue": deleted}, rotation.ErrSecretDeleted, false},
		{"current, no right", current, map[string]play{"GetSecretValue": refuse("AccessDeniedException")}, nil, false},
		{"current, no key", current, map[string]play{"GetSecretValue": refuse("DecryptionFailure")}, nil, false},
		{"current, lost", current, map[string]play{"GetSecretValue": lose}, nil, false},
		{"version, not there", byID, map[string]play{"GetSecretValue": missing, "ListSecretVersionIds": labels(second)},
			rotation.ErrNoVersion, false},
		{"version, no secret", byID, map[string]play{"GetSecretValue": missing, "ListSecretVersionIds": missing},
			rotation.ErrNoSecret, false},
		{"versions, no secret", versions, map[string]play{"ListSecretVersionIds": missing}, rotation.ErrNoSecret, false},
		{"versions, deleted", versions, map[string]play{"ListSecretVersionIds": labels(first), "GetSecretValue": deleted},
			rotation.ErrSecretDeleted, false},
		{"versions, none", versions, map[string]play{"ListSecretVersionIds": labels(), "GetSecretValue": missing}, nil, true},
		{"create, there with this", create, map[string]play{"CreateSecret": refuse("ResourceExistsException"),
			"GetSecretValue": stored(value.Reveal())}, nil, true},
		{"create, there with another value", create, map[string]play{"CreateSecret": refuse("ResourceExistsException"),
			"GetSecretValue": stored("{}")}, rotation.ErrVersionTaken, false},
		{"create, there without it", create, map[string]play{"CreateSecret": refuse("ResourceExistsException"),
			"GetSecretValue": missing, "ListSecretVersionIds": labels(second)}, rotation.ErrVersionTaken, false},
		{"create, there and unreadable", create, map[string]play{"CreateSecret": refuse("ResourceExistsException"),
			"GetSecretValue": lose}, nil, false},
		{"create, deleted", create, map[string]play{"CreateSecret": deleted}, rotation.ErrSecretDeleted, false},
		{"create, lost", create, map[string]play{"CreateSecret": lose}, nil, false},
		{"put, no secret", put, map[string]play{"PutSecretValue": missing}, rotation.ErrNoSecret, false},
		{"put, taken", put, map[string]play{"PutSecretValue": refuse("ResourceExistsException")}, rotation.ErrVersionTaken,
			false},
		{"put, deleted", put, map[string]play{"PutSecretValue": deleted}, rotation.ErrSecretDeleted, false},
		{"put, full", put, map[string]play{"PutSecretValue": refuse("LimitExceededException")}, rotation.ErrVersionLimit,
			false},
		{"put, throttled", put, map[string]play{"PutSecretValue": refuse("ThrottlingException")}, nil, false},
		{"put, refused", put, map[string]play{"PutSecretValue": refuse("InvalidParameterException")}, nil, false},
		{"promote, moved before", promote, map[string]play{"UpdateSecretVersionStage": refuse("InvalidParameterException"),
			"ListSecretVersionIds": labels(second, first)}, nil, true},
		{"promote, on another", promote, map[string]play{"UpdateSecretVersionStage": refuse("InvalidParameterException"),
			"ListSecretVersionIds": labels("333", second, first)}, rotation.ErrNotCurrent, false},
		{"promote, on none", promote, map[string]play{"UpdateSecretVersionStage": refuse("InvalidParameterException"),
			"ListSecretVersionIds": labels()}, rotation.ErrNoVersion, false},
		{"promote, not there", promote, map[string]play{"UpdateSecretVersionStage": missing,
			"ListSecretVersionIds": labels(first)}, rotation.ErrNoVersion, false},
		{"promote, invalid", promote, map[string]play{"UpdateSecretVersionStage": refuse("ValidationException"),
			"ListSecretVersionIds": labels(first)}, rotation.ErrNoVersion, false},
		{"promote, no secret", promote, map[string]play{"UpdateSecretVersionStage": missing, "ListSecretVersionIds": missing},
			rotation.ErrNoSecret, false},
		{"promote, refused for no reason", promote,
			map[string]play{"UpdateSecretVersionStage": refuse("InvalidParameterException"),
				"ListSecretVersionIds": labels(first, second)}, nil, false},
		{"promote, refused and labels unreadable", promote,
			map[string]play{"UpdateSecretVersionStage": refuse("InvalidParameterException"), "ListSecretVersionIds": lose}, nil,
			false},
		{"promote, deleted", promote, map[string]play{"UpdateSecretVersionStage": deleted}, rotation.ErrSecretDeleted, false},
		{"promote, no right", promote, map[string]play{"UpdateSecretVersionStage": refuse("AccessDeniedException")}, nil,
			false},
		{"promote, lost", promote, map[string]play{"UpdateSecretVersionStage": lose}, nil, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			v, _ := secrets(by(test.play))
			err := test.call(v)
			if (err == nil) != test.done {
				t.Fatalf("got %v", err)
			}
			got := slices.DeleteFunc(slices.Clone(known), func(k error) bool { return !errors.Is(err, k) })
			if test.want == nil && len(got) > 0 || test.want != nil && !slices.Equal(got, []error{test.want}) {
				t.Errorf("it means %v, want %v: %v", got, test.want, err)
			}
			if err != nil && (strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), acme.String())) {
				t.Errorf("it discloses the value or does not say which connection: %v", err)
			}
		})
	}
}

func TestVersionsIncludesThoseWithoutLabels(t *testing.T) {
	page := 0
	v, script := secrets(by(map[string]play{
		"ListSecretVersionIds": func(c awstest.Call) (any, error) {
			page++
			if page == 1 {
				return map[string]any{"NextToken": "more", "Versions": []any{map[string]any{
					"VersionId": first, "CreatedDate": 1.7e9, "VersionStages": []string{"AWSCURRENT", "AWSPENDING"}}}}, nil
			}
			return map[string]any{"Versions": []any{map[string]any{"VersionId": second, "CreatedDate": 1.6e9}}}, nil
		},
		"GetSecretValue": give(map[string]any{"VersionId": first, "SecretString": value.Reveal()}),
	}))
	got, err := v.Versions(t.Context(), acme)
	if err != nil || len(got) != 2 || got[0].ID != first || !got[0].CreatedAt.Equal(time.Unix(1.7e9, 0)) ||
		!slices.Equal(got[0].Labels, []string{"AWSCURRENT", "AWSPENDING"}) || got[1].ID != second || len(got[1].Labels) > 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if asked := script.Calls()[0]; asked.Input["IncludeDeprecated"] != true {
		t.Errorf("asked for %v", asked)
	}
}

func TestLostAnswerOfAPutIsRepeatedUnderTheSameID(t *testing.T) {
	asked := 0
	v, script := secrets(func(awstest.Call) (any, error) {
		asked++
		if asked == 1 {
			return nil, errReset
		}
		return nil, nil
	})
	if err := v.Put(t.Context(), acme, first, value); err != nil {
		t.Fatal(err)
	}
	calls := script.Calls()
	if len(calls) != 2 || !reflect.DeepEqual(calls[0], calls[1]) {
		t.Errorf("asked for %v", calls)
	}
}

func TestWritesKeepToFourFifthsOfTheQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, script := secrets(give(nil))
		begun, inFirstSecond := time.Now(), 0
		for range 50 {
			for _, err := range []error{v.Put(t.Context(), acme, first, value), v.Promote(t.Context(), acme, second, first)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if time.Since(begun) < time.Second {
				inFirstSecond = len(script.Calls())
			}
		}
		if took := time.Since(begun); inFirstSecond > 50 || took < 2250*time.Millisecond || took > 2500*time.Millisecond {
			t.Errorf("100 writes took %v, %d of them in the first second", took, inFirstSecond)
		}
		for range 100 { // reads are not limited
			if _, err := v.Current(t.Context(), acme); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(begun) > 2500*time.Millisecond {
			t.Error("reads waited")
		}
	})
}
