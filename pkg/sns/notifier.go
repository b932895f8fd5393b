// Package sns sends notices to an Amazon SNS topic. It needs the action Publish.
package sns

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// Client is the part of *sns.Client that the package uses.
type Client interface {
	Publish(context.Context, *sns.PublishInput, ...func(*sns.Options)) (*sns.PublishOutput, error)
}

// patience is how long a notice may delay its sender.
const patience = 3 * time.Second

// maxSubject is the longest subject that SNS accepts, in characters.
const maxSubject = 100

// Notifier is a rotation.Notifier. It is safe for concurrent use.
type Notifier struct {
	client Client
	topic  string
}

var (
	_ Client            = (*sns.Client)(nil)
	_ rotation.Notifier = (*Notifier)(nil)
)

// New returns a notifier for the topic with the ARN. It makes no call.
func New(client Client, topicARN string) *Notifier {
	return &Notifier{client, topicARN}
}

// Notify implements rotation.Notifier. A notice is often the last
// action before a deadline, so it is sent even if ctx is done.
func (n *Notifier) Notify(ctx context.Context, notice rotation.Notice) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	message, err := messages(notice)
	if err != nil {
		return fmt.Errorf("encoding a notice: %w", err)
	}
	_, err = n.client.Publish(ctx, &sns.PublishInput{TopicArn: &n.topic, Subject: aws.String(subject(notice)),
		MessageStructure: aws.String("json"), Message: aws.String(message)})
	if err != nil {
		return fmt.Errorf("publishing to %s: %w", n.topic, err)
	}
	return nil
}

// messages are a message for each kind of subscription, as SNS reads them if the message
// structure is "json": text for people, and JSON for everything else.
func messages(notice rotation.Notice) (string, error) {
	data, err := inJSON(struct {
		rotation.Notice
		Link string `json:"link,omitempty"`
	}{notice, notice.Link.Reveal()})
	if err != nil {
		return "", err
	}
	return inJSON(struct {
		Default string `json:"default"`
		Email   string `json:"email"`
		SMS     string `json:"sms"`
	}{data, mail(notice), subject(notice)})
}

// inJSON leaves characters such as & as they are.
func inJSON(v any) (string, error) {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// mail is the notice as the text of an e-mail.
func mail(n rotation.Notice) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", n.Summary)
	if link := n.Link.Reveal(); link != "" {
		fmt.Fprintf(&b, "The link for that person. Anyone who has it can use it, so do not send it to a list:\n%s\n\n", link)
	}
	if n.Connection.IsZero() {
		fmt.Fprintf(&b, "Environment: %s\n", n.Environment)
	} else {
		fmt.Fprintf(&b, "Connection: %s\n", n.Connection)
	}
	fmt.Fprintf(&b, "Notice: %s\nTime: %s\n", n.Kind, n.At.UTC().Format("2006-01-02 15:04 MST"))
	return b.String()
}

// subject returns one line of ASCII, as SNS requires for e-mail.
func subject(n rotation.Notice) string {
	s := "tokenturn: " + n.Title()
	return s[:min(len(s), maxSubject)]
}
