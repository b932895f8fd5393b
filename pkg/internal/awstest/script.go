// Package awstest gives the tests of the AWS adapters a real SDK client: for a service that
// the test scripts, or for an AWS server.
package awstest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// Call is one received request. Input has the members as encoding/json decodes them into
// any.
type Call struct {
	Operation string
	Input     map[string]any
}

// Fault is an error answer of a service.
type Fault struct {
	Code string
	More map[string]any // members other than the message
}

func (f Fault) Error() string { return f.Code }

// Script answers for the services to the clients of its Config.
type Script struct {
	play func(Call) (any, error)

	mu    sync.Mutex
	calls []Call
}

// Play returns a script that answers each request with what play returns: the
// output's members, a Fault, or an error that simulates a lost answer.
func Play(play func(Call) (any, error)) *Script { return &Script{play: play} }

// Config is for the clients of the script. They repeat a request twice, without a pause.
func (s *Script) Config() aws.Config {
	return config("http://script.invalid", 3, &http.Client{Transport: s})
}

// Calls returns the requests so far.
func (s *Script) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Operations returns the names of the requested operations so far.
func (s *Script) Operations() []string {
	var names []string
	for _, c := range s.Calls() {
		names = append(names, c.Operation)
	}
	return names
}

// RoundTrip implements http.RoundTripper for the JSON protocols and, without
// an output, for the query protocol.
func (s *Script) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	call, err := read(r, body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.calls = append(s.calls, call)
	s.mu.Unlock()
	output, err := s.play(call)
	switch fault, refused := err.(Fault); {
	case refused:
		members := map[string]any{"__type": fault.Code, "message": "the message of a service"}
		for name, value := range fault.More {
			members[name] = value
		}
		return answer(r, http.StatusBadRequest, members)
	case err != nil:
		return nil, err
	case r.Header.Get("X-Amz-Target") == "":
		return xmlAnswer(r, call.Operation), nil
	}
	return answer(r, http.StatusOK, output)
}

func read(r *http.Request, body []byte) (Call, error) {
	call := Call{Input: map[string]any{}}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		_, call.Operation, _ = strings.Cut(target, ".")
		return call, json.Unmarshal(body, &call.Input)
	}
	form, err := url.ParseQuery(string(body))
	for name := range form {
		call.Input[name] = form.Get(name)
	}
	call.Operation = form.Get("Action")
	return call, err
}

func answer(r *http.Request, status int, members any) (*http.Response, error) {
	if members == nil {
		members = map[string]any{}
	}
	body, err := json.Marshal(members)
	return response(r, status, "application/x-amz-json-1.1", body), err
}

func xmlAnswer(r *http.Request, operation string) *http.Response {
	return response(r, http.StatusOK, "text/xml", fmt.Appendf(nil, "<%[1]sResponse><%[1]sResult/></%[1]sResponse>",
		operation))
}

func response(r *http.Request, status int, contentType string, body []byte) *http.Response {
	return &http.Response{StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		ContentLength: int64(len(body)),
		Header:        http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(bytes.NewReader(body))}
}

func config(endpoint string, attempts int, client aws.HTTPClient) aws.Config {
	return aws.Config{Region: "us-east-1", BaseEndpoint: &endpoint, HTTPClient: client,
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
		Retryer: func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts, o.RateLimiter = attempts, ratelimit.None
				o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
			})
		}}
}
