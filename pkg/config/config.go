// Package config reads the settings of an AWS installation from environment
// variables: once, from an environment that the caller passes. It reports all
// problems at once, each under the name of its variable.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const prefix = "TOKENTURN_"

// Settings are the variables, without the prefix TOKENTURN_, and one of Lambda's. An empty
// variable counts as not set, because templates cannot always leave one out.
//
// The text must match the tag "form" before it is parsed. Messages say what a variable
// takes with the tag "accepts". The tag "stack" says whether the outputs of a CloudFormation
// stack contain the setting; see FromOutputs.
type Settings struct {
	// Table is the DynamoDB table of ledger, invitations and states.
	Table string `env:"TABLE" stack:"always" form:"^[A-Za-z0-9_.-]{3,255}$" accepts:"the name of a DynamoDB table"`
	// SecretPrefix is the start of all secret names.
	SecretPrefix string `env:"SECRET_PREFIX" stack:"always" envDefault:"tokenturn" form:"^[A-Za-z0-9_+=.@-]+(/[A-Za-z0-9_+=.@-]+)*$" accepts:"the start of secret names, such as tokenturn, without a slash at either end"`
	// SealKey is the KMS key that seals answers of the token endpoint.
	SealKey string `env:"SEAL_KEY" stack:"always" form:"^\\S+$" accepts:"the id, ARN or alias/NAME of a KMS key"`
	// VaultKey is the KMS key that encrypts new secrets at rest; empty for the
	// account's aws/secretsmanager.
	VaultKey string `env:"VAULT_KEY" stack:"always" form:"^\\S+$" accepts:"the id, ARN or alias/NAME of a KMS key"`
	// Stack is the id of this installation, written into every secret; the
	// table's name unless set. Two installations must not share one.
	Stack string `env:"STACK" stack:"always" form:"^[A-Za-z0-9_.-]{1,255}$" accepts:"an id of letters, digits, '.', '_' and '-'"`
	// PublicURL is the address at which people reach the callback function, without a
	// slash at the end.
	PublicURL string `env:"PUBLIC_URL" stack:"always" accepts:"an https:// URL of a host and nothing more, such as https://connect.example.com (http:// for localhost only)"`
	// Organization is the name that the pages show as the one who asks for access,
	// usually the company's name. Without it the pages name the host only.
	Organization string `env:"ORGANIZATION" stack:"optional" form:"^[\\pL\\pN\\pP\\pS]([\\pL\\pM\\pN\\pP\\pS ]{0,78}[\\pL\\pM\\pN\\pP\\pS])?$" accepts:"a name of at most 80 letters, digits, punctuation marks and single spaces, such as Acme Builders"`
	// ReturnOrigins are the origins that the return URL of an invitation may have. Without
	// them, no invitation has one.
	ReturnOrigins []string `env:"RETURN_ORIGINS" stack:"optional" accepts:"origins separated by commas, such as https://app.example.com (http:// for localhost only)"`
	// QueueURL is the SQS queue of follow-ups. Without it, the next sweep does
	// what a follow-up would have done earlier.
	QueueURL string `env:"QUEUE_URL" stack:"always" form:"^https?://[^/\\s]+/\\S+$" accepts:"the URL of an SQS queue"`
	// TopicARN is the SNS topic of notices. Without it they are only logged.
	TopicARN string `env:"TOPIC_ARN" stack:"always" form:"^arn:[^:\\s]+:sns:[^:\\s]+:[^:\\s]+:[^:\\s]+$" accepts:"the ARN of an SNS topic"`
	// Cadence is the time between two scheduled sweeps. It decides how early a
	// pair is renewed, so it must not be shorter than the schedule's interval.
	Cadence time.Duration `env:"CADENCE" stack:"always" envDefault:"1h" accepts:"a duration such as 15m or 1h"`
	// Concurrency is how many connections one run handles at once.
	Concurrency int `env:"CONCURRENCY" envDefault:"8" accepts:"a whole number of at least 1"`
	// RedeemRate is the number of redeems a second that all runs together make per
	// environment. A rate above Procore's limit causes 429s, which delay but lose nothing.
	RedeemRate float64 `env:"REDEEM_RATE" stack:"always" envDefault:"2" form:"^[0-9.]+$" accepts:"a number of redeems a second, such as 2 or 0.5"`
	// RedeemTimeout is the longest one POST to the token endpoint may take, at
	// most 30 s. A shorter one turns slow answers into lost ones; a longer one
	// leaves the callback function no time to save the answer.
	RedeemTimeout time.Duration `env:"REDEEM_TIMEOUT" envDefault:"20s" accepts:"a duration such as 20s"`
	// Lease is the life of one attempt, at least twice RedeemTimeout and 5 s.
	Lease time.Duration `env:"LEASE" envDefault:"60s" accepts:"a duration such as 60s"`
	// Quiet is how long after the lease tokenturn does not present a token with an
	// unknown end.
	Quiet time.Duration `env:"QUIET" envDefault:"2m" accepts:"a duration such as 2m"`
	// Proxy is the HTTP proxy through which tokenturn reaches Procore, in tunnels (CONNECT).
	// It may contain a password. Without it tokenturn uses no proxy: it ignores
	// HTTPS_PROXY and its like, which are often set for all programs of a machine.
	Proxy token.Secret `env:"PROXY" accepts:"the URL of an HTTP proxy, such as http://proxy.example.com:3128"`
	// LogLevel is the lowest level that is logged.
	LogLevel slog.Level `env:"LOG_LEVEL" stack:"always" envDefault:"info" form:"^(debug|info|warn|error)$" accepts:"one of debug, info, warn and error"`
	// XRayDaemon is the address for traces, from Lambda's AWS_XRAY_DAEMON_ADDRESS.
	// Without it nothing is traced.
	XRayDaemon string
}

// Program says which program reads the settings: each requires different ones.
type Program string

const (
	Rotate   Program = "rotate"   // the function that rotates
	Callback Program = "callback" // the function that serves invitations and redirects
	Operator Program = "operator" // the operator's command, on an AWS installation
	Local    Program = "local"    // the operator's command, on the embedded store
)

// needs lists the variables that a program requires.
var needs = map[Program][]string{
	Rotate:   {"TABLE", "SEAL_KEY"},
	Callback: {"TABLE", "SEAL_KEY", "PUBLIC_URL"},
	Operator: {"TABLE", "SEAL_KEY"},
}

// Names lists all variables, in order of documentation.
func Names() []string {
	var names []string
	for _, f := range fields() {
		names = append(names, prefix+f.Tag.Get("env"))
	}
	return names
}

// Read takes the settings of a program from environ, which has the form of
// os.Environ. The error lists all problems; it repeats no value, because a
// wrong variable may contain a secret.
func Read(program Program, environ []string) (Settings, error) {
	values, problems := ours(environ)
	for _, f := range fields() {
		name := f.Tag.Get("env")
		value, set := values[name]
		switch {
		case !set && slices.Contains(needs[program], name):
			problems = append(problems, fmt.Errorf("%s%s is not set; it takes %s", prefix, name, f.Tag.Get("accepts")))
		case set && !wellFormed(f, value):
			problems = append(problems, fmt.Errorf("%s%s is not %s", prefix, name, f.Tag.Get("accepts")))
			delete(values, name) // so that the others are checked together with its default
		}
	}
	var s Settings
	if err := env.ParseWithOptions(&s, env.Options{Environment: values}); err != nil {
		return Settings{}, fmt.Errorf("reading settings: %w", err) // cannot happen: each value was parsed before
	}
	if s.Stack == "" {
		s.Stack = s.Table
	}
	s.XRayDaemon = env.ToMap(environ)["AWS_XRAY_DAEMON_ADDRESS"]
	s.ReturnOrigins, _ = invitations.ParseReturnOrigins(values["RETURN_ORIGINS"]) // well-formed, or empty
	s.PublicURL = strings.ToLower(strings.TrimSuffix(s.PublicURL, "/"))           // as browsers write a host
	problems = append(problems, s.contradictions()...)
	if err := errors.Join(problems...); err != nil {
		return Settings{}, fmt.Errorf("reading settings: %w", err)
	}
	return s, nil
}

// Rotation returns the settings in the form that the engine takes.
func (s Settings) Rotation() rotation.Settings {
	r := rotation.DefaultSettings(s.Stack)
	r.Cadence, r.Concurrency, r.RedeemRate = s.Cadence, s.Concurrency, s.RedeemRate
	r.RedeemTimeout, r.Lease, r.Quiet = s.RedeemTimeout, s.Lease, s.Quiet
	return r
}

// inVariables replaces the terms of rotation.Settings.Validate with the names of the
// variables that an operator can change.
var inVariables = strings.NewReplacer(
	"the cadence", prefix+"CADENCE",
	"the concurrency", prefix+"CONCURRENCY",
	"the redeem rate", prefix+"REDEEM_RATE",
	"the redeem timeout", prefix+"REDEEM_TIMEOUT",
	"the quiet period", prefix+"QUIET",
	"the lease", prefix+"LEASE",
	"the stack id", prefix+"STACK",
)

// contradictions returns the engine's objections to the settings. A missing table,
// and with it a missing stack id, has been reported already.
func (s Settings) contradictions() []error {
	if s.Stack == "" {
		s.Stack = "unknown"
	}
	err := s.Rotation().Validate()
	if err == nil {
		return nil
	}
	var problems []error
	for line := range strings.Lines(err.Error()) {
		problems = append(problems, errors.New(inVariables.Replace(strings.TrimSpace(line))))
	}
	return problems
}

// ours returns the variables with tokenturn's prefix that are not empty, and reports
// unknown ones, which are usually misspelled.
func ours(environ []string) (values map[string]string, problems []error) {
	values = map[string]string{}
	all := env.ToMap(environ)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		short, ok := strings.CutPrefix(name, prefix)
		switch {
		case !ok:
		case !slices.Contains(Names(), name):
			problems = append(problems, fmt.Errorf("%s is not a setting; the settings are %s", name,
				strings.Join(Names(), ", ")))
		case all[name] != "":
			values[short] = all[name]
		}
	}
	return values, problems
}

// wellFormed reports whether value is what the field accepts.
func wellFormed(f field, value string) bool {
	switch f.Name {
	case "PublicURL":
		return isPublicURL(value)
	case "Proxy":
		return isProxyURL(value)
	case "ReturnOrigins":
		_, err := invitations.ParseReturnOrigins(value)
		return err == nil
	}
	if form := f.Tag.Get("form"); form != "" && !regexp.MustCompile(form).MatchString(value) {
		return false
	}
	var s Settings
	return env.ParseWithOptions(&s, env.Options{Environment: map[string]string{f.Tag.Get("env"): value}}) == nil
}

// isPublicURL reports whether text is a URL that works with cookies with the __Host-
// prefix and with Procore's redirect rules: a host without a path, with https, or with
// http where browsers still treat it as secure (Secure Contexts, section 3.1: loopback
// addresses and localhost).
func isPublicURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Opaque != "" ||
		strings.TrimSuffix(u.Path, "/") != "" || strings.ContainsAny(text, "?#") {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	return u.Scheme == "https" || u.Scheme == "http" && loopback
}

// isProxyURL reports whether text is http://host:port, with or without credentials.
func isProxyURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "http" && u.Hostname() != "" && u.Port() != "" &&
		strings.TrimSuffix(u.Path, "/") == "" && !strings.ContainsAny(text, "?#")
}

// ProxyURL returns the URL of Proxy, nil without one.
func (s Settings) ProxyURL() *url.URL {
	if s.Proxy.IsZero() {
		return nil
	}
	u, err := url.Parse(s.Proxy.Reveal())
	if err != nil {
		return nil // cannot happen: Read parsed it
	}
	return u
}

// fields returns the settings that are variables of tokenturn.
func fields() []field {
	return slices.DeleteFunc(slices.Collect(reflect.TypeFor[Settings]().Fields()),
		func(f field) bool { return f.Tag.Get("env") == "" })
}

type field = reflect.StructField
