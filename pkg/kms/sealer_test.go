package kms_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"testing"

	awskms "github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/kms"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func sealer(play func(awstest.Call) (any, error)) (*kms.Sealer, *awstest.Script) {
	script := awstest.Play(play)
	return kms.New(awskms.NewFromConfig(script.Config()), "alias/seal", "stack-a"), script
}

func TestDataKeyIsBoundToTheStack(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	s, script := sealer(func(c awstest.Call) (any, error) {
		return map[string]any{"Plaintext": key, "CiphertextBlob": []byte("wrapped")}, nil
	})
	gotKey, wrapped, err := s.DataKey(t.Context())
	if err != nil || !bytes.Equal(gotKey, key) || string(wrapped) != "wrapped" {
		t.Fatalf("got %x, %q, %v", gotKey, wrapped, err)
	}
	if gotKey, err = s.Unwrap(t.Context(), wrapped); err != nil || !bytes.Equal(gotKey, key) {
		t.Fatalf("got %x, %v", gotKey, err)
	}
	bound := map[string]any{"tokenturn:stack": "stack-a"}
	want := []awstest.Call{
		{Operation: "GenerateDataKey", Input: map[string]any{"KeyId": "alias/seal", "KeySpec": "AES_256",
			"EncryptionContext": bound}},
		{Operation: "Decrypt", Input: map[string]any{"CiphertextBlob": base64.StdEncoding.EncodeToString([]byte("wrapped")),
			"EncryptionContext": bound}},
	}
	if calls := script.Calls(); !reflect.DeepEqual(calls, want) {
		t.Errorf("asked for %v, want %v", calls, want)
	}
}

func TestOnlyBadBytesAreUnsealable(t *testing.T) {
	for code, want := range map[string]bool{
		"InvalidCiphertextException":      true,
		"IncorrectKeyException":           true,
		"AccessDeniedException":           false,
		"DisabledException":               false,
		"KMSInvalidStateException":        false,
		"NotFoundException":               false,
		"KeyUnavailableException":         false,
		"DependencyTimeoutException":      false,
		"KMSInternalException":            false,
		"ThrottlingException":             false,
		"ExpiredTokenException":           false,
		"InvalidGrantTokenException":      false,
		"UnrecognizedClientException":     false,
		"RequestLimitExceeded":            false,
		"SomethingNewException":           false,
		"InvalidSignatureException":       false,
		"XksProxyUriUnreachableException": false,
	} {
		s, _ := sealer(func(awstest.Call) (any, error) { return nil, awstest.Fault{Code: code} })
		_, err := s.Unwrap(t.Context(), []byte("wrapped"))
		if err == nil || errors.Is(err, rotation.ErrUnsealable) != want {
			t.Errorf("%s: unsealable %t, want %t: %v", code, !want, want, err)
		}
	}
	s, script := sealer(func(awstest.Call) (any, error) { return nil, errors.New("no network") })
	if _, err := s.Unwrap(t.Context(), []byte("wrapped")); err == nil || errors.Is(err, rotation.ErrUnsealable) {
		t.Errorf("a lost answer: %v", err)
	}
	asked := len(script.Calls())
	if _, err := s.Unwrap(t.Context(), nil); !errors.Is(err, rotation.ErrUnsealable) || len(script.Calls()) != asked {
		t.Errorf("nothing to unwrap: %v", err)
	}
}
