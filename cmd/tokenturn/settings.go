package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"

	"github.com/tokenturn/tokenturn/pkg/config"
)

// configuration is everything that a command needs to know to work on an installation in AWS.
type configuration struct {
	choice
	environ []string          // with the stack's outputs
	sources map[string]chosen // of the variables that the stack sets
	aws     aws.Config
}

// settingsError is a problem with the settings themselves, which doctor reports in detail.
type settingsError struct{ error }

// configure finds out where the installation in AWS is, and its settings. It asks AWS only
// if a stack is named.
func (c *cli) configure(ctx context.Context) (*configuration, error) {
	if c.configured != nil {
		return c.configured, nil
	}
	chosen, err := c.choose()
	if err != nil {
		return nil, err
	}
	conf := &configuration{choice: chosen, environ: c.environ}
	if chosen.stack.value == "" { // problems with variables come first: finding credentials can take seconds
		if _, err := conf.settings(); err != nil {
			return nil, err
		}
	}
	if conf.aws, err = chosen.load(ctx); err != nil {
		return nil, conf.explain(err)
	}
	if conf.aws.Region == "" {
		return nil, exitf(usage, "no AWS region is set: add --region, set AWS_REGION, or set a region in your AWS profile")
	}
	if err := conf.checkCredentials(ctx); err != nil {
		return nil, err
	}
	if chosen.stack.value != "" {
		if err := c.readStack(ctx, conf); err != nil {
			return nil, err
		}
	}
	c.configured = conf
	return conf, nil
}

// load reads the configuration of the AWS SDK: region, credentials and endpoints as every
// program with the SDK finds them (AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL and so on).
func (ch choice) load(ctx context.Context) (aws.Config, error) {
	// The SDK logs what it tries on its way to credentials. What it does not find is an error of its own.
	options := []func(*awsconfig.LoadOptions) error{awsconfig.WithLogger(logging.Nop{})}
	if ch.region.value != "" {
		options = append(options, awsconfig.WithRegion(ch.region.value))
	}
	if ch.awsProfile.value != "" {
		options = append(options, awsconfig.WithSharedConfigProfile(ch.awsProfile.value))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("loading the configuration of the AWS SDK: %w", err)
	}
	return cfg, nil
}

// settings reads and checks the settings.
func (conf *configuration) settings() (config.Settings, error) {
	s, err := config.Read(config.Operator, conf.environ)
	if err == nil {
		return s, nil
	}
	if conf.stack.value == "" {
		return s, exitf(usage, "%w\nor name the installation in AWS with --stack STACK or --use PROFILE; add a profile "+
			"with: tokenturn profile add NAME --stack STACK --region REGION", settingsError{err})
	}
	return s, &exitError{usage, settingsError{err}}
}

// identity are the variables that say which installation it is: from two installations they
// must not be mixed.
var identity = []string{"TOKENTURN_TABLE", "TOKENTURN_SECRET_PREFIX", "TOKENTURN_SEAL_KEY", "TOKENTURN_STACK"}

// readStack takes the settings that the stack's outputs contain. A variable of the
// environment wins over a profile that is merely in use, unless it names another
// installation, and loses against a flag.
func (c *cli) readStack(ctx context.Context, conf *configuration) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	outputs, err := conf.stackOutputs(ctx)
	if err != nil {
		return err
	}
	variables, missing := config.FromOutputs(outputs)
	if !conf.explicit() {
		missing = slices.DeleteFunc(missing, func(output string) bool {
			return slices.ContainsFunc(config.Names(), func(name string) bool {
				return config.Output(name) == output && c.getenv(name) != ""
			})
		})
	}
	if len(missing) > 0 {
		return conf.incomplete(missing, len(variables) == 0)
	}
	conf.sources = map[string]chosen{}
	var assignments, unused, foreign []string
	for _, name := range config.Names() {
		own, value := c.getenv(name), variables[name]
		differs := own != "" && own != value
		switch {
		case !config.MayBeInStack(name), value == "" && !differs:
		case conf.explicit() && differs:
			unused = append(unused, name)
			fallthrough
		case own == "" || conf.explicit():
			assignments = append(assignments, name+"="+value)
			if value != "" {
				conf.sources[name] = chosen{value, fromStack, config.Output(name)}
			}
		case differs && value != "" && slices.Contains(identity, name):
			foreign = append(foreign, name)
		}
	}
	if len(foreign) > 0 {
		return exitf(usage, "the environment sets %s to a value that %s does not have, so it names another installation; "+
			"to work on that stack, unset it or name the stack with --use or --stack; to work on the other "+
			"installation, set both TOKENTURN_TABLE and TOKENTURN_SEAL_KEY", strings.Join(foreign, ", "), conf.where())
	}
	if len(unused) > 0 {
		c.say("Not used, because %s names the installation: %s of the environment.",
			conf.flag(), strings.Join(unused, ", "))
	}
	conf.environ = slices.Concat(c.environ, assignments) // the last assignment counts
	return nil
}

// installationName names the installation in AWS that the command works on, for questions
// before something ends: sandbox and production must not be mixed up. It is empty for the
// store of this machine.
func (c *cli) installationName() string {
	if c.configured == nil {
		return ""
	}
	settings, err := c.configured.settings()
	if err != nil {
		return ""
	}
	name := settings.Stack + " in " + c.configured.aws.Region
	if p := c.configured.profile.value; p != "" {
		name += ", profile " + p
	}
	return name
}

// flag is the flag that names the installation.
func (ch choice) flag() string {
	if ch.profile.source == fromFlag {
		return ch.profile.from + " " + ch.profile.value
	}
	return ch.stack.from + " " + ch.stack.value
}
