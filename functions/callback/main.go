// Command callback is the Lambda function behind the HTTP API: it serves
// invitations and the redirect from the authorization page. Package consent
// documents the routes.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/tokenturn/tokenturn/pkg/awsstack"
	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/lambdahttp"
	"github.com/tokenturn/tokenturn/pkg/lambdalog"
	"github.com/tokenturn/tokenturn/pkg/metrics"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/traces"
)

func main() {
	err := run(context.Background(), os.Environ(), os.Stdout, func(h lambda.Handler) { lambda.Start(h) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "callback:", err)
		os.Exit(1)
	}
}

// run reads the settings, wires the function and starts serving, which does not
// return on Lambda.
func run(ctx context.Context, environ []string, logs io.Writer, start func(lambda.Handler)) error {
	settings, err := config.Read(config.Callback, environ)
	if err != nil {
		return err
	}
	tracer, err := traces.New(settings.XRayDaemon)
	if err != nil {
		return err
	}
	meter := metrics.New(logs, settings.Stack, time.Now)
	cfg, err := awsstack.FunctionConfig(os.Getenv)
	if err != nil {
		return err
	}
	stack, err := awsstack.Open(cfg, settings, lambdalog.New(logs, settings.LogLevel), meter, tracer)
	if err != nil {
		return err
	}
	handler, err := consentHandler(stack)
	if err != nil {
		return err
	}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer meter.Flush()
		stack.Issuer.CloseIdleConnections() // they may be dead after a freeze of the environment
		handler.ServeHTTP(w, r)
	})
	stack.Warm(ctx)
	start(tracer.Handler(lambda.NewHandler(lambdahttp.Handler(serve))))
	return nil
}

// consentHandler answers invitations and callbacks under the installation's public URL.
func consentHandler(s *awsstack.Stack) (*consent.Handler, error) {
	consents, err := s.Consents()
	if err != nil {
		return nil, err
	}
	face := func(ctx context.Context, environment string) (consent.Face, error) {
		value, err := s.Applications.Value(ctx, environment)
		if err != nil {
			return consent.Face{}, err
		}
		credentials, err := procore.ParseCredentials(value)
		return consent.Face{Name: credentials.Name, Logo: credentials.Logo}, err
	}
	return consent.New(consent.Config{Store: s.Table, Consents: consents, Applications: s.Applications,
		AuthorizeURL: procore.AuthorizeURL, PublicURL: s.Settings.PublicURL,
		Organization: s.Settings.Organization, ReturnOrigins: s.Settings.ReturnOrigins,
		Observer: s.Meter, Faces: face, Logger: s.Log, Now: time.Now})
}
