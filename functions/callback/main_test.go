package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

const publicURL = "https://abcdefghij.execute-api.us-east-1.amazonaws.com"

// aws points the SDK at a server that answers as DynamoDB does for a missing item,
// and returns the operations that were called. The first one is that of the start.
func aws(t *testing.T) *[]string {
	t.Helper()
	var called []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called = append(called, r.Header.Get("X-Amz-Target"))
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = io.WriteString(w, `{}`)
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": "us-east-1",
		"AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example", "AWS_CONFIG_FILE": os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": ""} {
		t.Setenv(name, value)
	}
	return &called
}

// invoke sends the named sample, changed by edit, to the started function.
func invoke(t *testing.T, name string, edit func(*events.APIGatewayV2HTTPRequest)) events.APIGatewayV2HTTPResponse {
	t.Helper()
	var handler lambda.Handler
	err := run(t.Context(), []string{"TOKENTURN_TABLE=tokens", "TOKENTURN_SEAL_KEY=alias/seal", "TOKENTURN_PUBLIC_URL=" +
		publicURL},
		io.Discard, func(h lambda.Handler) { handler = h })
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../events/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var event events.APIGatewayV2HTTPRequest
	if err := json.Unmarshal(text, &event); err != nil {
		t.Fatal(err)
	}
	edit(&event)
	if text, err = json.Marshal(event); err != nil {
		t.Fatal(err)
	}
	payload, err := handler.Invoke(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	var answer events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(payload, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func asItIs(*events.APIGatewayV2HTTPRequest) {}

func TestUnknownInvitationIsOneRead(t *testing.T) {
	called := aws(t)
	if answer := invoke(t, "connect", asItIs); answer.StatusCode != http.StatusNotFound {
		t.Errorf("status %d", answer.StatusCode)
	}
	if len(*called) != 2 || !strings.HasSuffix((*called)[1], ".GetItem") {
		t.Errorf("called %v", *called)
	}
}

func TestUnknownStateIsRefused(t *testing.T) {
	called := aws(t)
	if answer := invoke(t, "callback", asItIs); answer.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d", answer.StatusCode)
	}
	if len(*called) != 2 || !strings.HasSuffix((*called)[1], ".GetItem") {
		t.Errorf("called %v", *called)
	}
}

func TestHealthAsksNobody(t *testing.T) {
	called := aws(t)
	answer := invoke(t, "connect", func(e *events.APIGatewayV2HTTPRequest) {
		e.RawPath, e.RequestContext.HTTP.Path, e.PathParameters = "/healthz", "/healthz", nil
	})
	if answer.StatusCode != http.StatusOK || answer.Body != "ok\n" || len(*called) != 1 {
		t.Errorf("%d %q, called %v", answer.StatusCode, answer.Body, *called)
	}
}

func TestPublicURLIsRequired(t *testing.T) {
	err := run(t.Context(), []string{"TOKENTURN_TABLE=tokens", "TOKENTURN_SEAL_KEY=alias/seal"}, io.Discard,
		func(lambda.Handler) { t.Error("started") })
	if err == nil || !strings.Contains(err.Error(), "TOKENTURN_PUBLIC_URL") {
		t.Errorf("got %v", err)
	}
}
