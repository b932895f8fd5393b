//go:build conformance

package conformance

import (
	"encoding/json"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// scheduled is what an EventBridge rule sends every hour.
const scheduled = `{"version":"0","id":"53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa","detail-type":"Scheduled Event","source":"aws.events",` +
	`"account":"123456789012","time":"2026-11-21T22:00:00Z","region":"us-east-1","resources":["arn:aws:events:us-east-1:123456789012:rule/tokenturn"],"detail":{}}`

// report is the rotate function's answer, as design.md fixes it.
type report struct {
	Op          string         `json:"op"`
	Due         int            `json:"due"`
	Outcomes    map[string]int `json:"outcomes"`
	Connections []struct {
		Connection string    `json:"connection"`
		Outcome    string    `json:"outcome"`
		Epoch      int64     `json:"epoch"`
		Generation int64     `json:"generation"`
		ExpiresAt  time.Time `json:"expires_at"`
		RetryAt    time.Time `json:"retry_at"`
		Detail     string    `json:"detail"`
	} `json:"connections"`
}

// outcome is that of the connection; "" if the report does not mention it.
func (r report) outcome(connection string) string {
	for _, c := range r.Connections {
		if c.Connection == connection {
			return c.Outcome
		}
	}
	return ""
}

// invoke hands the event to the rotate function and notes its answer.
func (in *installation) invoke(event string) ([]byte, error) {
	in.t.Helper()
	answer, err := in.rotate.Invoke(in.t.Context(), []byte(event))
	_, _ = in.answers.Write(append(answer, '\n'))
	if err != nil {
		_, _ = in.answers.Write([]byte(err.Error() + "\n"))
	}
	return answer, err
}

// do is invoke for events that must be answered with a report.
func (in *installation) do(event string) report {
	in.t.Helper()
	answer, err := in.invoke(event)
	if err != nil {
		in.t.Fatalf("rotate with %s: %v", event, err)
	}
	var r report
	if err := json.Unmarshal(answer, &r); err != nil {
		in.t.Fatalf("rotate answered %s: %v", answer, err)
	}
	return r
}

// try is do for events that may end in an error, for lack of an answer from AWS.
func (in *installation) try(event string) (r report) {
	in.t.Helper()
	if answer, err := in.invoke(event); err == nil {
		in.must(json.Unmarshal(answer, &r))
	}
	return r
}

func (in *installation) sweep() report {
	in.t.Helper()
	return in.do(scheduled)
}

func (in *installation) force(connection string) report {
	in.t.Helper()
	return in.do(`{"op":"rotate","connection":"` + connection + `"}`)
}

// deliver hands the messages that are in the queue now to the rotate function,
// as Lambda's event source mapping would, and returns how many there were.
// Delayed messages are not there before their time.
func (in *installation) deliver() int {
	in.t.Helper()
	delivered := 0
	for {
		url := in.env["TOKENTURN_QUEUE_URL"]
		out, err := in.queue.ReceiveMessage(in.t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10})
		in.must(err)
		if len(out.Messages) == 0 {
			return delivered
		}
		delivered += len(out.Messages)
		var batch events.SQSEvent
		handles := map[string]*string{}
		for _, m := range out.Messages {
			batch.Records = append(batch.Records, events.SQSMessage{MessageId: *m.MessageId, ReceiptHandle: *m.ReceiptHandle,
				Body: aws.ToString(m.Body), Attributes: m.Attributes, EventSource: "aws:sqs", AWSRegion: "us-east-1",
				EventSourceARN: "arn:aws:sqs:us-east-1:123456789012:" + in.env["TOKENTURN_TABLE"]})
			handles[*m.MessageId] = m.ReceiptHandle
		}
		event, err := json.Marshal(batch)
		in.must(err)
		answer, err := in.invoke(string(event))
		in.must(err)
		var response events.SQSEventResponse
		if err := json.Unmarshal(answer, &response); err != nil {
			in.t.Fatalf("rotate answered the batch with %s: %v", answer, err)
		}
		for _, failed := range response.BatchItemFailures {
			delete(handles, failed.ItemIdentifier)
		}
		for _, handle := range handles {
			_, err := in.queue.DeleteMessage(in.t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: handle})
			in.must(err)
		}
	}
}
