package lambdalog_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/tokenturn/tokenturn/pkg/lambdalog"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestLinesCarryTheRequest(t *testing.T) {
	var out bytes.Buffer
	log := lambdalog.New(&out, slog.LevelInfo).With("stack", "blue")
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "request-1"})
	log.InfoContext(ctx, "rotated", "connection", "sandbox/acme", "token", token.NewSecret("canary"))
	log.DebugContext(ctx, "below the level")
	log.Info("outside of a request")

	lines := slices.Collect(strings.Lines(out.String()))
	if len(lines) != 2 {
		t.Fatalf("%d lines:\n%s", len(lines), &out)
	}
	var first, second map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(lines[1]), &second); err != nil {
		t.Fatal(err)
	}
	delete(first, "timestamp")
	want := map[string]any{"level": "INFO", "message": "rotated", "stack": "blue", "connection": "sandbox/acme",
		"token": "[redacted]", "requestId": "request-1"}
	if !maps.Equal(first, want) {
		t.Errorf("got %v", first)
	}
	if _, ok := second["requestId"]; ok || second["timestamp"] == nil {
		t.Errorf("got %v", second)
	}
}
