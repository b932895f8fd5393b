package infra_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/config"
)

// Every setting reaches the functions, except those that have a reason not to.
// (TestFunctionsEnvironmentIsAccepted checks the opposite direction.)
func TestFunctionsHaveEverySetting(t *testing.T) {
	tmpl := load(t, main)
	left := map[string]string{
		"TOKENTURN_CONCURRENCY":    "the number of requests in flight follows from the rate",
		"TOKENTURN_REDEEM_TIMEOUT": "bounds the lease; to be changed together with it or not at all",
		"TOKENTURN_LEASE":          "its default fits the function's time and Procore's answers",
		"TOKENTURN_QUIET":          "its default fits the lease",
		"TOKENTURN_PROXY":          "the functions are in no VPC and reach Procore directly",
	}
	onlyFor := map[string]string{"TOKENTURN_REDEEM_RATE": "RotateFunction", "TOKENTURN_ORGANIZATION": "CallbackFunction",
		"TOKENTURN_RETURN_ORIGINS": "CallbackFunction"}
	for _, function := range []string{"RotateFunction", "CallbackFunction"} {
		var set []string
		for _, pair := range tmpl.environment(function, nil) {
			name, _, _ := strings.Cut(pair, "=")
			set = append(set, name)
		}
		for _, name := range config.Names() {
			only := onlyFor[name]
			if wanted := left[name] == "" && (only == "" || only == function); wanted != slices.Contains(set, name) {
				t.Errorf("%s has %s: %v, want %v", function, name, !wanted, wanted)
			}
		}
	}
}

// The command reads from the outputs what the functions have in their environment, and
// every stack has the outputs that it wants.
func TestOutputsAreTheFunctionsSettings(t *testing.T) {
	tmpl := load(t, main)
	outputs := object(tmpl.root["Outputs"])
	for _, parameters := range []map[string]any{nil, {"Schedule": "rate(15 minutes)", "RedeemRate": 3.5,
		"LogLevel": "warn", "PublicUrl": "https://connect.example.com", "SecretPrefix": "other",
		"Organization": "Acme Builders", "ReturnOrigins": "https://app.example.com,https://b.example.com:8443"}} {
		values := tmpl.values(parameters)
		functions := map[string]string{}
		for _, function := range []string{"RotateFunction", "CallbackFunction"} {
			for _, pair := range tmpl.environment(function, parameters) {
				name, value, _ := strings.Cut(pair, "=")
				functions[name] = value
			}
		}
		found := map[string]string{}
		for name, output := range outputs {
			condition := object(output)["Condition"]
			if condition == nil || tmpl.resolve(map[string]any{"Fn::If": []any{condition, "yes", "no"}}, values) == "yes" {
				found[name] = text(tmpl.resolve(object(output)["Value"], values))
			}
		}
		settings, missing := config.FromOutputs(found)
		if len(missing) > 0 {
			t.Errorf("the template has no output %q", missing)
		}
		for _, name := range config.Names() {
			if functions[name] != settings[name] {
				t.Errorf("%s is %q for the functions and %q in the outputs", name, functions[name], settings[name])
			}
			if output := object(outputs[config.Output(name)]); settings[name] != "" &&
				!strings.HasPrefix(text(output["Description"])+" ", name+" ") && name != "TOKENTURN_PUBLIC_URL" {
				t.Errorf("the description of the output %s does not name %s", config.Output(name), name)
			}
		}
	}
}

// What a deleted stack is imported with is what the template keeps, or the next
// deployment would change or replace it. Only the key policies differ, so that the
// deployment writes them again.
func TestKeptIsAsInTheTemplate(t *testing.T) {
	kept, whole := load(t, "../kept.yaml"), load(t, main)
	for name := range object(kept.root["Resources"]) {
		if whole.resource(name) == nil {
			t.Errorf("the template has no %s", name)
		}
	}
	for name := range object(whole.root["Resources"]) {
		want, got := whole.resource(name), kept.resource(name)
		if want["DeletionPolicy"] != "Retain" {
			if got != nil {
				t.Errorf("%s is not kept", name)
			}
			continue
		}
		delete(object(want["Properties"]), "KeyPolicy")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, in the template %v", name, got, want)
		}
	}
}
