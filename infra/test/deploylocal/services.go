package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/apigatewayv2"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tokenturn/tokenturn/infra/test/lambdaruntime"
)

// functions are those that were created, by ARN.
type functions map[string]*lambdaruntime.Function

// startFunctions reads back what was created, and runs it with the settings
// found there, as Lambda would.
func startFunctions(ctx context.Context, s *stack) (functions, error) {
	log, err := os.Create(filepath.Join(s.cloud.buildDir, "functions.log"))
	if err != nil {
		return nil, err
	}
	created, err := s.cloud.lambda.ListFunctions(ctx, &lambda.ListFunctionsInput{})
	if err != nil {
		return nil, err
	}
	all := functions{}
	for _, f := range created.Functions {
		env := map[string]string{"AWS_ENDPOINT_URL": s.cloud.url, "AWS_ACCESS_KEY_ID": "AKIA" +
			strings.ToUpper(*f.FunctionName), "AWS_SECRET_ACCESS_KEY": "test"}
		if f.Environment != nil {
			maps.Copy(env, f.Environment.Variables)
		}
		all[*f.FunctionArn] = lambdaruntime.New(lambdaruntime.Config{Name: *f.FunctionName,
			Bootstrap: s.programs[*f.FunctionName], Env: env,
			Timeout: time.Duration(aws.ToInt32(f.Timeout)) * time.Second, Log: log})
	}
	return all, nil
}

func (f functions) invoke(ctx context.Context, arn string, event []byte) ([]byte, error) {
	function := f[arn]
	if function == nil {
		return nil, fmt.Errorf("there is no function %s", arn)
	}
	return function.Invoke(ctx, event)
}

func (f functions) kill() {
	for _, function := range f {
		function.Kill()
	}
}

// deliver does what the event source mapping would: it gives what is in the
// queue to the function, in batches of its size, and deletes what was done.
func (t *trial) deliver(ctx context.Context) error {
	mappings, err := t.cloud.lambda.ListEventSourceMappings(ctx, &lambda.ListEventSourceMappingsInput{})
	if err != nil {
		return err
	}
	mapping := mappings.EventSourceMappings[0]
	if arn := t.made["FollowUps"].attributes["Arn"]; aws.ToString(mapping.EventSourceArn) != arn {
		return fmt.Errorf("the event source mapping reads %s and not %s", aws.ToString(mapping.EventSourceArn), arn)
	}
	queue := t.outputs["QueueUrl"].value
	for {
		out, err := t.cloud.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &queue,
			MaxNumberOfMessages: aws.ToInt32(mapping.BatchSize)})
		if err != nil || len(out.Messages) == 0 {
			return err
		}
		var batch events.SQSEvent
		for _, m := range out.Messages {
			batch.Records = append(batch.Records, events.SQSMessage{MessageId: *m.MessageId, ReceiptHandle: *m.ReceiptHandle,
				Body:        *m.Body,
				EventSource: "aws:sqs", EventSourceARN: *mapping.EventSourceArn, AWSRegion: region})
		}
		event, err := json.Marshal(batch)
		if err != nil {
			return err
		}
		answer, err := t.functions.invoke(ctx, aws.ToString(mapping.FunctionArn), event)
		if err != nil {
			return err
		}
		if string(answer) != `{"batchItemFailures":[]}` {
			return fmt.Errorf("the function answers a batch with %s", answer)
		}
		for _, m := range out.Messages {
			if _, err := t.cloud.sqs.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &queue,
				ReceiptHandle: m.ReceiptHandle}); err != nil {
				return err
			}
		}
	}
}

// browser reaches the callback function by the routes and the integration that
// were created.
type browser struct {
	*trial
	host    string
	routes  map[string]string // route key to the ARN of a function
	cookies map[string]string
}

func (t *trial) newBrowser(ctx context.Context) (*browser, error) {
	api := aws.String(t.made["Api"].ref)
	integrations, err := t.cloud.gateway.GetIntegrations(ctx, &apigatewayv2.GetIntegrationsInput{ApiId: api})
	if err != nil {
		return nil, err
	}
	targets := map[string]string{}
	for _, i := range integrations.Items {
		targets["integrations/"+aws.ToString(i.IntegrationId)] = aws.ToString(i.IntegrationUri)
	}
	routes, err := t.cloud.gateway.GetRoutes(ctx, &apigatewayv2.GetRoutesInput{ApiId: api})
	if err != nil {
		return nil, err
	}
	b := &browser{t, strings.TrimPrefix(t.outputs["PublicUrl"].value, "https://"), map[string]string{},
		map[string]string{}}
	for _, r := range routes.Items {
		b.routes[aws.ToString(r.RouteKey)] = targets[aws.ToString(r.Target)]
	}
	return b, nil
}

// open requests an address of the API and returns where the answer leads.
func (b *browser) open(ctx context.Context, method, address string, want int) (location string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	key, arn := b.route(method, u)
	if u.Host != "" && u.Host != b.host || arn == "" {
		return "", fmt.Errorf("the API has no route for %s %s://%s%s", method, u.Scheme, u.Host, u.Path)
	}
	event, err := json.Marshal(b.request(method, key, u))
	if err != nil {
		return "", err
	}
	answer, err := b.functions.invoke(ctx, arn, event)
	var response events.APIGatewayV2HTTPResponse
	if err = errors.Join(err, json.Unmarshal(answer, &response)); err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	for _, line := range response.Cookies {
		if cookie, err := http.ParseSetCookie(line); err == nil {
			b.cookies[cookie.Name] = cookie.Value
		}
	}
	if response.StatusCode != want {
		return "", fmt.Errorf("%s answers %d, want %d", key, response.StatusCode, want)
	}
	for name, value := range response.Headers {
		if strings.EqualFold(name, "Location") {
			location = value
		}
	}
	return location, nil
}

// route finds the route of a request: the literal one, or the one with a
// parameter in the place of the last part of the path.
func (b *browser) route(method string, u *url.URL) (key, arn string) {
	for key, arn := range b.routes {
		m, pattern, _ := strings.Cut(key, " ")
		prefix, _, parametric := strings.Cut(pattern, "{")
		rest, fits := strings.CutPrefix(u.Path, prefix)
		if m == method && (pattern == u.Path || parametric && fits && rest != "" && !strings.Contains(rest, "/")) {
			return key, arn
		}
	}
	return "", ""
}

func (b *browser) request(method, key string, u *url.URL) events.APIGatewayV2HTTPRequest {
	headers := map[string]string{"host": b.host, "user-agent": "Mozilla/5.0", "accept": "text/html",
		"x-forwarded-proto": "https"}
	if method == http.MethodPost { // a form on a page with Referrer-Policy: no-referrer
		headers["content-type"], headers["origin"], headers["sec-fetch-site"] = "application/x-www-form-urlencoded", "null",
			"same-origin"
	}
	var cookies []string
	for name, value := range b.cookies {
		cookies = append(cookies, name+"="+value)
	}
	query := map[string]string{}
	for name, values := range u.Query() {
		query[name] = strings.Join(values, ",")
	}
	return events.APIGatewayV2HTTPRequest{Version: "2.0", RouteKey: key, RawPath: u.EscapedPath(),
		RawQueryString:        u.RawQuery,
		QueryStringParameters: query, Headers: headers, Cookies: cookies,
		RequestContext: events.APIGatewayV2HTTPRequestContext{Stage: "$default", DomainName: b.host, RouteKey: key,
			TimeEpoch: time.Now().UnixMilli(),
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{Method: method, Path: u.Path, Protocol: "HTTP/1.1",
				SourceIP: "192.0.2.1"}}}
}
