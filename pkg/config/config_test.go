package config_test

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// least is the settings that every program requires, and no others.
func least(more ...string) []string {
	return append([]string{"TOKENTURN_TABLE=tokens", "TOKENTURN_SEAL_KEY=alias/seal", "AWS_REGION=eu-west-1", "HOME=/"},
		more...)
}

func TestDefaultsAreThoseOfTheEngine(t *testing.T) {
	s, err := config.Read(config.Rotate, least())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Rotation(), rotation.DefaultSettings("tokens"); got != want {
		t.Errorf("engine settings:\n got %+v\nwant %+v", got, want)
	}
	if s.SecretPrefix != "tokenturn" || s.LogLevel != slog.LevelInfo || s.QueueURL != "" || s.TopicARN != "" ||
		s.PublicURL != "" {
		t.Errorf("defaults: %+v", s)
	}
}

func TestEverySettingIsRead(t *testing.T) {
	got, err := config.Read(config.Callback, []string{
		"TOKENTURN_TABLE=t-1", "TOKENTURN_SECRET_PREFIX=acme/tokens", "TOKENTURN_STACK=blue",
		"TOKENTURN_SEAL_KEY=arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		"TOKENTURN_VAULT_KEY=alias/vault", "TOKENTURN_PUBLIC_URL=https://Connect.example.com/",
		"TOKENTURN_ORGANIZATION=Müller & Söhne (Bau), Inc.",
		"TOKENTURN_QUEUE_URL=https://sqs.eu-west-1.amazonaws.com/111122223333/follow-ups",
		"TOKENTURN_TOPIC_ARN=arn:aws:sns:eu-west-1:111122223333:notices",
		"TOKENTURN_CADENCE=15m", "TOKENTURN_CONCURRENCY=3", "TOKENTURN_REDEEM_RATE=0.5",
		"TOKENTURN_REDEEM_TIMEOUT=10s", "TOKENTURN_LEASE=25s", "TOKENTURN_QUIET=90s", "TOKENTURN_LOG_LEVEL=debug",
		"TOKENTURN_PROXY=http://user:canary@proxy.example.com:3128/",
		"TOKENTURN_RETURN_ORIGINS=https://App.example.com:443,http://localhost:3000",
		"AWS_XRAY_DAEMON_ADDRESS=169.254.79.129:2000",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Settings{
		Table: "t-1", SecretPrefix: "acme/tokens", Stack: "blue",
		SealKey:       "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		VaultKey:      "alias/vault",
		PublicURL:     "https://connect.example.com",
		Organization:  "Müller & Söhne (Bau), Inc.",
		ReturnOrigins: []string{"https://app.example.com", "http://localhost:3000"},
		QueueURL:      "https://sqs.eu-west-1.amazonaws.com/111122223333/follow-ups",
		TopicARN:      "arn:aws:sns:eu-west-1:111122223333:notices",
		Cadence:       15 * time.Minute, Concurrency: 3, RedeemRate: 0.5,
		RedeemTimeout: 10 * time.Second, Lease: 25 * time.Second, Quiet: 90 * time.Second, LogLevel: slog.LevelDebug,
		Proxy:      token.NewSecret("http://user:canary@proxy.example.com:3128/"),
		XRayDaemon: "169.254.79.129:2000",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	if u := got.ProxyURL(); u.Host != "proxy.example.com:3128" || u.User.String() != "user:canary" {
		t.Errorf("proxy: %v", u)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", got, got, got), "canary") {
		t.Error("the settings print the proxy's password")
	}
	if n := len(config.Names()); n != 18 {
		t.Errorf("%d variables are documented, this test sets 18", n)
	}
}

func TestEachProgramHasItsOwnNeeds(t *testing.T) {
	for program, want := range map[config.Program][]string{
		config.Rotate:   {"TOKENTURN_TABLE is not set", "TOKENTURN_SEAL_KEY is not set"},
		config.Operator: {"TOKENTURN_TABLE is not set", "TOKENTURN_SEAL_KEY is not set"},
		config.Callback: {"TOKENTURN_TABLE is not set", "TOKENTURN_SEAL_KEY is not set", "TOKENTURN_PUBLIC_URL is not set"},
	} {
		// An empty variable counts as not set.
		_, err := config.Read(program, []string{"TOKENTURN_TABLE="})
		wantProblems(t, string(program), err, want...)
	}
}

func TestProblemsAreReportedTogether(t *testing.T) {
	_, err := config.Read(config.Callback, []string{
		"TOKENTURN_SEAL_KEY=alias/seal", "TOKENTURN_TABLES=tokens", "TOKENTURN_PUBLIC_URL=https://example.com/base",
		"TOKENTURN_LOG_LEVEL=loud", "TOKENTURN_LEASE=30s", "TOKENTURN_CADENCE=hourly", "TOKENTURN_CONCURRENCY=0",
	})
	wantProblems(t, "all", err,
		"TOKENTURN_TABLES is not a setting; the settings are TOKENTURN_TABLE, ",
		"TOKENTURN_TABLE is not set; it takes the name of a DynamoDB table",
		"TOKENTURN_PUBLIC_URL is not an https:// URL",
		"TOKENTURN_CADENCE is not a duration such as 15m or 1h",
		"TOKENTURN_LOG_LEVEL is not one of debug, info, warn and error",
		"TOKENTURN_CONCURRENCY 0 is not positive",
		"TOKENTURN_LEASE 30s is shorter than twice TOKENTURN_REDEEM_TIMEOUT 20s plus 5s",
	)
}

// Every objection of the engine names the variable.
func TestContradictionsNameVariables(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"TOKENTURN_CADENCE=-1h", "TOKENTURN_CADENCE -1h0m0s is not positive"},
		{"TOKENTURN_CONCURRENCY=-2", "TOKENTURN_CONCURRENCY -2 is not positive"},
		{"TOKENTURN_REDEEM_RATE=0", "TOKENTURN_REDEEM_RATE 0 is not positive"},
		{"TOKENTURN_REDEEM_TIMEOUT=0s", "TOKENTURN_REDEEM_TIMEOUT 0s is not positive"},
		{"TOKENTURN_REDEEM_TIMEOUT=-20s", "TOKENTURN_REDEEM_TIMEOUT -20s is not positive"},
		{"TOKENTURN_QUIET=0s", "TOKENTURN_QUIET 0s is not positive"},
		{"TOKENTURN_LEASE=44s", "TOKENTURN_LEASE 44s is shorter than twice TOKENTURN_REDEEM_TIMEOUT 20s"},
	} {
		_, err := config.Read(config.Rotate, least(c.set))
		wantProblems(t, c.set, err, c.want)
	}
}

// A callback has a minute for an exchange, a run of the rotate function 15: a POST
// that may take that long leaves no time to save its answer.
func TestRedeemTimeoutLeavesTimeToSave(t *testing.T) {
	for set, accepted := range map[string]bool{"30s": true, "30001ms": false, "42s": false, "866s": false, "24h": false} {
		_, err := config.Read(config.Callback, least("TOKENTURN_PUBLIC_URL=https://connect.example.com",
			"TOKENTURN_LEASE=49h", "TOKENTURN_REDEEM_TIMEOUT="+set))
		if accepted {
			if err != nil {
				t.Errorf("%s: %v", set, err)
			}
			continue
		}
		wantProblems(t, set, err, "too long; it is at most 30s")
		if err != nil && !strings.Contains(err.Error(), "TOKENTURN_REDEEM_TIMEOUT") {
			t.Errorf("%s: the variable is not named: %v", set, err)
		}
	}
}

func TestValuesOutOfFormAreRefused(t *testing.T) {
	const canary = "canary-9f2c"
	for _, set := range []string{
		"TOKENTURN_TABLE=" + canary + " with spaces", "TOKENTURN_TABLE=ab", "TOKENTURN_SECRET_PREFIX=/" + canary,
		"TOKENTURN_SECRET_PREFIX=" + canary + "/", "TOKENTURN_SECRET_PREFIX=a//b", "TOKENTURN_SEAL_KEY=" + canary + "\n",
		"TOKENTURN_VAULT_KEY=" + canary + " ", "TOKENTURN_STACK=" + canary + "/", "TOKENTURN_QUEUE_URL=" + canary,
		"TOKENTURN_TOPIC_ARN=arn:aws:sqs:r:1:" + canary,
		"TOKENTURN_CONCURRENCY=1.5", "TOKENTURN_CONCURRENCY=" + canary, "TOKENTURN_REDEEM_RATE=Inf",
		"TOKENTURN_REDEEM_RATE=NaN",
		"TOKENTURN_REDEEM_RATE=1.2.3",
		"TOKENTURN_ORGANIZATION=" + canary + "\nx", "TOKENTURN_ORGANIZATION= " + canary, "TOKENTURN_ORGANIZATION=" + canary +
			" ",
		"TOKENTURN_ORGANIZATION=" + canary + "\u202e", "TOKENTURN_ORGANIZATION=" + strings.Repeat("x", 81),
		"TOKENTURN_QUIET=120", "TOKENTURN_LOG_LEVEL=INFO+1",
		"TOKENTURN_PUBLIC_URL=http://example.com", "TOKENTURN_PUBLIC_URL=https://", "TOKENTURN_PUBLIC_URL=example.com",
		"TOKENTURN_PUBLIC_URL=https://user:" + canary + "@example.com", "TOKENTURN_PUBLIC_URL=https://example.com/?a=" +
			canary,
		"TOKENTURN_PUBLIC_URL=https://example.com/#", "TOKENTURN_PUBLIC_URL=https://example.com//",
		"TOKENTURN_PUBLIC_URL=https://exa mple.com",
		"TOKENTURN_PUBLIC_URL=http://localhost.example.com", "TOKENTURN_PUBLIC_URL=ftp://localhost",
		"TOKENTURN_PUBLIC_URL=https:example.com",
		"TOKENTURN_PROXY=" + canary, "TOKENTURN_PROXY=https://" + canary + ":3128", "TOKENTURN_PROXY=http://" + canary,
		"TOKENTURN_PROXY=http://:3128", "TOKENTURN_PROXY=http://" + canary + ":3128/x",
		"TOKENTURN_PROXY=http://u:" + canary + "@h:1?x", "TOKENTURN_PROXY=socks5://" + canary + ":1080",
	} {
		name, _, _ := strings.Cut(set, "=")
		_, err := config.Read(config.Rotate, least(set))
		wantProblems(t, set, err, name+" is not ")
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the message repeats the value: %v", name, err)
		}
	}
}

func TestPublicURLMayBeLoopback(t *testing.T) {
	for _, u := range []string{"http://localhost:8080", "http://127.0.0.1:80", "http://[::1]:8080", "https://localhost",
		"https://example.com:8443"} {
		s, err := config.Read(config.Callback, least("TOKENTURN_PUBLIC_URL="+u))
		if err != nil || s.PublicURL != u {
			t.Errorf("%s: got %q, %v", u, s.PublicURL, err)
		}
	}
}

// wantProblems checks that err has exactly these lines, in any order.
func wantProblems(t *testing.T, what string, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: accepted", what)
		return
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Errorf("%s: %d problems instead of %d:\n%v", what, len(lines), len(want), err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: no %q in:\n%v", what, w, err)
		}
	}
}

func FuzzReadNeverPanics(f *testing.F) {
	f.Add("TOKENTURN_PUBLIC_URL", "https://[::1")
	f.Add("TOKENTURN_REDEEM_RATE", ".")
	f.Add("", "=")
	f.Fuzz(func(t *testing.T, name, value string) {
		s, err := config.Read(config.Callback, least("TOKENTURN_PUBLIC_URL=https://example.com", name+"="+value))
		if err == nil && s.Rotation().Validate() != nil {
			t.Errorf("%s=%q passes, yet the engine refuses it", name, value)
		}
	})
}
