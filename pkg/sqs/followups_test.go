package sqs_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/sqs"
)

const queue = "https://sqs.us-east-1.amazonaws.com/123456789012/follow-ups"

func TestSendCarriesTheRequest(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, nil })
	f := sqs.New(awssqs.NewFromConfig(script.Config(), noChecksum), queue)
	request := rotation.Request{Op: "ensure", Connection: "sandbox/acme", MinTTLSeconds: 600, Epoch: 1, Generation: 12,
		NotBefore: time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)}
	if err := f.Send(t.Context(), request, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	call := script.Calls()[0]
	if call.Operation != "SendMessage" || call.Input["QueueUrl"] != queue {
		t.Errorf("asked for %v", call)
	}
	var got rotation.Request
	if err := json.Unmarshal([]byte(call.Input["MessageBody"].(string)), &got); err != nil || got != request {
		t.Errorf("body %v, %v", call.Input["MessageBody"], err)
	}
}

func TestDelayStaysWithinWhatSQSTakes(t *testing.T) {
	for delay, want := range map[time.Duration]float64{-time.Second: 0, 0: 0, time.Millisecond: 1, 210 * time.Second: 210,
		rotation.MaxDelay: 900, rotation.MaxDelay + time.Millisecond: 900, time.Hour: 900} {
		script := awstest.Play(func(awstest.Call) (any, error) { return nil, nil })
		f := sqs.New(awssqs.NewFromConfig(script.Config(), noChecksum), queue)
		if err := f.Send(t.Context(), rotation.Request{Op: "sweep"}, delay); err != nil {
			t.Fatal(err)
		}
		got, _ := script.Calls()[0].Input["DelaySeconds"].(float64) // no value means the queue's default, which is 0
		if got != want {
			t.Errorf("delay %v became %v seconds, want %v", delay, got, want)
		}
	}
}

// A follow-up that was lost on the way is sent again; a second delivery does no harm.
func TestLostFollowUpIsSentAgain(t *testing.T) {
	asked := 0
	script := awstest.Play(func(awstest.Call) (any, error) {
		if asked++; asked == 1 {
			return nil, syscall.ECONNRESET
		}
		return nil, nil
	})
	f := sqs.New(awssqs.NewFromConfig(script.Config(), noChecksum), queue)
	if err := f.Send(t.Context(), rotation.Request{Op: "sweep"}, time.Minute); err != nil {
		t.Error(err)
	}
	if calls := script.Calls(); len(calls) != 2 || !reflect.DeepEqual(calls[0], calls[1]) {
		t.Errorf("asked for %v", calls)
	}
}

func TestUnsentFollowUpSaysWhich(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, errors.New("no network") })
	f := sqs.New(awssqs.NewFromConfig(script.Config()), queue)
	err := f.Send(t.Context(), rotation.Request{Op: "publish", Connection: "sandbox/acme"}, 0)
	if err == nil || !strings.Contains(err.Error(), "publish sandbox/acme") || !strings.Contains(err.Error(), queue) {
		t.Errorf("got %v", err)
	}
}

// noChecksum spares the script the MD5 sums of SQS's answers.
func noChecksum(o *awssqs.Options) { o.DisableMessageChecksumValidation = true }
