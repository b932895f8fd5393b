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
	onlyFor := map[string]string{"TOKENTURN_REDEEM_RATE": "RotateFunction", "TOKENTURN_ORGANIZATION": "CallbackFunction"}
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
