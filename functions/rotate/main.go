// Command rotate is the Lambda function that keeps tokens fresh. Package trigger
// documents the events that it accepts.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/tokenturn/tokenturn/pkg/awsstack"
	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/lambdalog"
	"github.com/tokenturn/tokenturn/pkg/metrics"
	"github.com/tokenturn/tokenturn/pkg/traces"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

func main() {
	err := run(context.Background(), os.Environ(), os.Stdout, func(h lambda.Handler) { lambda.Start(h) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "rotate:", err)
		os.Exit(1)
	}
}

// run reads the settings, wires the function and starts serving, which does not
// return on Lambda.
func run(ctx context.Context, environ []string, logs io.Writer, start func(lambda.Handler)) error {
	settings, err := config.Read(config.Rotate, environ)
	if err != nil {
		return err
	}
	log := lambdalog.New(logs, settings.LogLevel)
	tracer, err := traces.New(settings.XRayDaemon)
	if err != nil {
		return err
	}
	meter := metrics.New(logs, settings.Stack, time.Now)
	cfg, err := awsstack.FunctionConfig(os.Getenv)
	if err != nil {
		return err
	}
	stack, err := awsstack.Open(cfg, settings, log, meter, tracer)
	if err != nil {
		return err
	}
	rotator, err := stack.Rotator()
	if err != nil {
		return err
	}
	stack.Warm(ctx)
	start(tracer.Handler(trigger.Handler{Engine: rotator, Log: log, Meter: meter,
		Begin: stack.Issuer.CloseIdleConnections}))
	return nil
}
