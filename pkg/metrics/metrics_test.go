package metrics_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/metrics"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	acme = token.Connection{Environment: "sandbox", Name: "acme"}
	noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

func newMeter() (*metrics.Meter, *bytes.Buffer) {
	var log bytes.Buffer
	return metrics.New(&log, "blue", func() time.Time { return noon }), &log
}

// lines reads what was flushed.
func lines(t *testing.T, log *bytes.Buffer) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, members)
	}
	return all
}

// The test shows the whole line that CloudWatch gets.
func TestALineHasTheFormOfTheSpecification(t *testing.T) {
	meter, log := newMeter()
	meter.Report(rotation.Report{Op: "rotate", Connections: []rotation.ConnectionReport{{Connection: acme,
		Outcome:   rotation.Deferred,
		ExpiresAt: noon.Add(20 * time.Minute), Detail: "HTTP 429", Versions: 24, Unpublished: true}}})
	meter.Flush()
	const want = `{"Connections":1,"SecretVersions":24,"TokenLifeLeft":1200,"Unpublished":1,"_aws":{"CloudWatchMetrics":[` +
		`{"Namespace":"tokenturn","Dimensions":[["stack","environment","outcome"],["stack","outcome"]],"Metrics":[{"Name":"Connections","Unit":"Count"}]},` +
		`{"Namespace":"tokenturn","Dimensions":[["stack","environment"],["stack"]],"Metrics":[{"Name":"TokenLifeLeft","Unit":"Seconds"},{"Name":"SecretVersions","Unit":"Count"},{"Name":"Unpublished","Unit":"Count"}]}],` +
		`"Timestamp":1795262400000},"connection":"sandbox/acme","detail":"HTTP 429","environment":"sandbox","outcome":"deferred","stack":"blue"}` + "\n"
	if log.String() != want {
		t.Errorf("got\n%swant\n%s", log, want)
	}
}

// Nothing is logged between an answer and its saving.
func TestNothingIsWrittenBeforeFlush(t *testing.T) {
	meter, log := newMeter()
	issuer := meter.Issuer(&rotationtest.Issuer{Journal: &rotationtest.Journal{}})
	answer := issuer.Redeem(t.Context(), rotationtest.Sandbox, rotation.Grant{RefreshToken: token.NewSecret("canary")})
	if log.Len() != 0 {
		t.Errorf("written at once: %s", log)
	}
	meter.Flush()
	got := lines(t, log)
	if len(got) != 1 || got[0]["environment"] != "sandbox" || got[0]["answer"] != string(answer.Class) ||
		got[0]["RedeemLatency"] == nil {
		t.Errorf("got %v", got)
	}
	if strings.Contains(log.String(), "canary") {
		t.Error("a secret is in the line")
	}
	log.Reset()
	if meter.Flush(); log.Len() != 0 {
		t.Errorf("written twice: %s", log)
	}
}

// The token's life says nothing about a connection that is in order: a busy one is
// about to get a new token, and by the rule of due times a fresh one has enough life.
func TestTokenLifeIsThatOfConnectionsThatWereDue(t *testing.T) {
	for outcome, measured := range map[rotation.Outcome]bool{rotation.Rotated: true, rotation.Deferred: true,
		rotation.Unknown: true, rotation.InQuarantine: true,
		rotation.ConfigError: true, rotation.Failed: true, rotation.Fresh: false, rotation.Busy: false,
		rotation.ConsentNeeded: false} {
		meter, log := newMeter()
		meter.Report(rotation.Report{Connections: []rotation.ConnectionReport{{Connection: acme, Outcome: outcome,
			ExpiresAt: noon.Add(-time.Minute)}}})
		meter.Flush()
		if life, ok := lines(t, log)[0]["TokenLifeLeft"]; ok != measured || ok && life != -60.0 {
			t.Errorf("%s: %v", outcome, life)
		}
	}
}

func TestDeniedCallsAreMeasuredOnceWhateverTheCode(t *testing.T) {
	for code, measured := range map[string]bool{"AccessDeniedException": true, "KMS.AccessDeniedException": true,
		"AuthorizationError": true, "DisabledException": true,
		"KMSInvalidStateException": true, "DecryptionFailure": true, "ThrottlingException": false,
		"NotFoundException": false} {
		meter, log := newMeter()
		cfg := awstest.Play(func(awstest.Call) (any, error) { return nil, awstest.Fault{Code: code} }).Config()
		cfg.APIOptions = append(cfg.APIOptions, meter.Calls)
		if _, err := kms.NewFromConfig(cfg).GenerateDataKey(t.Context(),
			&kms.GenerateDataKeyInput{KeyId: aws.String("alias/seal")}); err == nil {
			t.Fatal("nothing was refused")
		}
		meter.Flush()
		got := lines(t, log)
		if (len(got) == 1) != measured {
			t.Fatalf("%s: %v", code, got)
		}
		if measured && (got[0]["Denied"] != 1.0 || got[0]["service"] != "KMS" || got[0]["operation"] != "GenerateDataKey" ||
			got[0]["code"] != code) {
			t.Errorf("%s: %v", code, got[0])
		}
	}
}

func TestNoticesAreMeasuredAndPassedOn(t *testing.T) {
	meter, log := newMeter()
	next := &rotationtest.Notifier{Journal: &rotationtest.Journal{}}
	notifier := meter.Notifier(next)
	if err := errors.Join(
		notifier.Notify(t.Context(), rotation.Notice{Kind: rotation.NoticeDrift, Connection: acme, Environment: "sandbox",
			Summary: "canary"}),
		notifier.Notify(t.Context(), rotation.Notice{Kind: rotation.NoticeConfigError, Environment: "sandbox"}),
		meter.Notifier(nil).Notify(t.Context(), rotation.Notice{Kind: rotation.NoticeUnsaved, Connection: acme,
			Environment: "sandbox"})); err != nil {
		t.Error(err)
	}
	meter.Flush()
	got := lines(t, log)
	if len(next.Notices()) != 2 || len(got) != 3 {
		t.Fatalf("%d passed on, %d measured", len(next.Notices()), len(got))
	}
	if got[0]["kind"] != "drift" || got[0]["connection"] != "sandbox/acme" || strings.Contains(log.String(), "canary") {
		t.Errorf("got %v", got[0])
	}
	if _, named := got[1]["connection"]; named {
		t.Errorf("a notice about an environment names a connection: %v", got[1])
	}
}

func TestANilMeterMeasuresNothing(t *testing.T) {
	var meter *metrics.Meter
	meter.Report(rotation.Report{Op: "sweep", Connections: []rotation.ConnectionReport{{Connection: acme}}})
	meter.Ended(acme, "connected")
	meter.Reused(acme)
	meter.Flush()
	issuer, notifier := &rotationtest.Issuer{}, &rotationtest.Notifier{}
	if meter.Issuer(issuer) != rotation.Issuer(issuer) || meter.Notifier(notifier) != rotation.Notifier(notifier) ||
		meter.Notifier(nil) != nil {
		t.Error("a nil meter wraps what it gets")
	}
	cfg := awstest.Play(func(awstest.Call) (any, error) {
		return map[string]any{"Plaintext": "a2V5", "CiphertextBlob": "a2V5"}, nil
	}).Config()
	cfg.APIOptions = append(cfg.APIOptions, meter.Calls)
	if _, err := kms.NewFromConfig(cfg).GenerateDataKey(context.Background(),
		&kms.GenerateDataKeyInput{KeyId: aws.String("alias/seal")}); err != nil {
		t.Error(err)
	}
}
