package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

// aws points the SDK at a server that answers as DynamoDB does for an empty
// table, and returns the operations that were called. The first one is that of the start.
func aws(t *testing.T) *[]string {
	t.Helper()
	var called []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called = append(called, r.Header.Get("X-Amz-Target"))
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = io.WriteString(w, `{"Count":0,"Items":[],"ScannedCount":0}`)
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": "us-east-1",
		"AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example", "AWS_CONFIG_FILE": os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": ""} {
		t.Setenv(name, value)
	}
	return &called
}

func started(t *testing.T, logs io.Writer, environ ...string) lambda.Handler {
	t.Helper()
	var handler lambda.Handler
	if err := run(t.Context(), environ, logs, func(h lambda.Handler) { handler = h }); err != nil {
		t.Fatal(err)
	}
	return handler
}

func TestScheduledEventSweepsWithOneCall(t *testing.T) {
	called := aws(t)
	var logs bytes.Buffer
	handler := started(t, &logs, "TOKENTURN_TABLE=tokens", "TOKENTURN_SEAL_KEY=alias/seal")
	event, err := os.ReadFile("../../events/schedule.json")
	if err != nil {
		t.Fatal(err)
	}
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "request-1"})
	answer, err := handler.Invoke(ctx, event)
	if err != nil || !strings.HasPrefix(string(answer),
		`{"op":"sweep","due":0,"outcomes":{},"connections":[],"duration_ms":`) {
		t.Errorf("answer %s, %v", answer, err)
	}
	if len(*called) != 2 || !strings.HasSuffix((*called)[1], ".Query") {
		t.Errorf("called %v", *called)
	}
	if !strings.Contains(logs.String(), `"requestId":"request-1"`) {
		t.Errorf("log without the request's id: %s", &logs)
	}
}

func TestUnknownOpSaysWhatIsAcceptedAndTouchesNothing(t *testing.T) {
	called := aws(t)
	handler := started(t, io.Discard, "TOKENTURN_TABLE=tokens", "TOKENTURN_SEAL_KEY=alias/seal")
	for _, event := range []string{`{"op":"spin"}`, `{"op":"rotate","connection":"ACME"}`,
		`{"op":"ensure","connection":"sandbox/acme"}`} {
		if _, err := handler.Invoke(t.Context(), []byte(event)); err == nil || !strings.Contains(err.Error(),
			`{"op":"sweep"}`) {
			t.Errorf("%s: %v", event, err)
		}
	}
	if len(*called) != 1 {
		t.Errorf("called %v", *called)
	}
}

func TestBadSettingsKeepTheFunctionFromStarting(t *testing.T) {
	err := run(t.Context(), []string{"TOKENTURN_LEASE=1s"}, io.Discard, func(lambda.Handler) { t.Error("started") })
	for _, want := range []string{"TOKENTURN_TABLE", "TOKENTURN_SEAL_KEY", "TOKENTURN_LEASE"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
}

func TestMissingRegionIsNamed(t *testing.T) {
	aws(t)
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	err := run(t.Context(), []string{"TOKENTURN_TABLE=tokens", "TOKENTURN_SEAL_KEY=alias/seal"}, io.Discard,
		func(lambda.Handler) { t.Error("started") })
	if err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("got %v", err)
	}
}
