package infra_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// partitions are those of AWS in which the template can be deployed.
var partitions = []struct {
	values   map[string]any
	console  string
	jsonLogs bool
}{
	{map[string]any{"AWS::Partition": "aws", "AWS::Region": "us-east-1"}, "console.aws.amazon.com", true},
	{map[string]any{"AWS::Partition": "aws-cn", "AWS::Region": "cn-north-1"}, "console.amazonaws.cn", true},
	{map[string]any{"AWS::Partition": "aws-us-gov", "AWS::Region": "us-gov-west-1"}, "console.amazonaws-us-gov.com",
		false},
}

func TestTheDashboardIsInThePartitionsConsole(t *testing.T) {
	tmpl := load(t, main)
	for _, partition := range partitions {
		region := text(partition.values["AWS::Region"])
		values := tmpl.values(partition.values)
		values["Dashboard"] = tmpl.resolved("Dashboard", partition.values).at("DashboardName")
		link := text(tmpl.resolve(object(object(tmpl.root["Outputs"])["Dashboard"])["Value"], values))
		want := "https://" + partition.console + "/cloudwatch/home?region=" + region + "#dashboards:name=example-" + region
		if link != want {
			t.Errorf("got %s, want %s", link, want)
		}
	}
}

// No partition is hard-coded. The principals of AWS's services are the same in all of them.
func TestNoPartitionIsHardCoded(t *testing.T) {
	bound, free := regexp.MustCompile(`arn:aws|amazonaws\.c(om|n)`),
		regexp.MustCompile(`^ *(Principal: (\{Service: )?[a-z]+\.amazonaws\.com\}?|- Console: !If .*)\n$`)
	for _, path := range []string{main, "../kept.yaml", "../examples/reader.yaml"} {
		for line := range strings.Lines(read(t, path)) {
			if bound.MatchString(line) && !free.MatchString(line) {
				t.Errorf("%s: %s", path, line)
			}
		}
	}
}

// Names of these kinds belong to the account: a second Region must be able to have a stack of the same name.
func TestTwoRegionsShareNoName(t *testing.T) {
	tmpl, seen := load(t, main), 0
	for kind, property := range map[string]string{"AWS::CloudWatch::Dashboard": "DashboardName", role: "RoleName",
		managedPolicy: "ManagedPolicyName"} {
		for name := range tmpl.ofType(kind) {
			seen++
			east := tmpl.resolved(name, map[string]any{"AWS::Region": "us-east-1"}).at(property)
			west := tmpl.resolved(name, map[string]any{"AWS::Region": "us-west-2"}).at(property)
			if east != nil && east == west {
				t.Errorf("%s is %v in both Regions", name, east)
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d resources were looked at", seen)
	}
}

// make builds the functions for the processors that the deployment's parameter names.
func TestMakeBuildsForTheArchitecture(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not installed")
	}
	allowed := texts(list(object(object(load(t, main).root["Parameters"])["Architecture"])["AllowedValues"]))
	for architecture, want := range map[string]string{"": "GOARCH=arm64", "arm64": "GOARCH=arm64",
		"x86_64": "GOARCH=amd64"} {
		overrides := "parameter_overrides = [\n"
		if architecture != "" {
			overrides += "  \"Architecture=" + architecture + "\",\n"
			if !slices.Contains(allowed, architecture) {
				t.Errorf("the template does not allow %s", architecture)
			}
		}
		config := filepath.Join(t.TempDir(), "some.toml")
		if err := os.WriteFile(config, []byte(overrides+"]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		dry := exec.CommandContext(t.Context(), "make", "-C", top, "--dry-run", "build", "CONFIG="+config)
		commands, err := dry.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, commands)
		}
		if got := strings.Count(string(commands), want+" "); got != 3 {
			t.Errorf("with %q, %d programs are built with %s:\n%s", architecture, got, want, commands)
		}
	}
}
