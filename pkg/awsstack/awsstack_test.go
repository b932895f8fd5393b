package awsstack

import (
	"log/slog"
	"os"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/config"
)

func open(t *testing.T, more ...string) *Stack {
	t.Helper()
	for name, value := range map[string]string{"AWS_REGION": "us-east-1", "AWS_CONFIG_FILE": os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": ""} {
		t.Setenv(name, value)
	}
	settings, err := config.Read(config.Callback, append(more, "TOKENTURN_TABLE=tokens", "TOKENTURN_SEAL_KEY=alias/seal",
		"TOKENTURN_PUBLIC_URL=https://connect.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	stack, err := Open(t.Context(), settings, slog.New(slog.DiscardHandler), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stack
}

// An interface that holds a nil pointer is not nil: the engine would call it.
func TestWhatIsNotConfiguredIsNil(t *testing.T) {
	stack := open(t)
	if stack.FollowUps != nil || stack.Notifier != nil {
		t.Errorf("queue %v, topic %v", stack.FollowUps, stack.Notifier)
	}
	stack = open(t, "TOKENTURN_QUEUE_URL=https://sqs.us-east-1.amazonaws.com/111122223333/q", "TOKENTURN_TOPIC_ARN=arn:aws:sns:us-east-1:111122223333:t")
	if stack.FollowUps == nil || stack.Notifier == nil {
		t.Error("the queue or the topic is left out")
	}
}

func TestEverythingCanBeWired(t *testing.T) {
	stack := open(t)
	if _, err := stack.Rotator(); err != nil {
		t.Error(err)
	}
	if _, err := stack.ConsentHandler(); err != nil {
		t.Error(err)
	}
}

func TestCallsAreBounded(t *testing.T) {
	client := httpClient(64)
	if client.GetTimeout() != patience {
		t.Errorf("an attempt may take %v", client.GetTimeout())
	}
	if n := client.GetTransport().MaxIdleConnsPerHost; n < 64 {
		t.Errorf("64 connections in flight share %d idle ones", n)
	}
	if n := retryer().MaxAttempts(); n != attempts {
		t.Errorf("%d attempts", n)
	}
}
