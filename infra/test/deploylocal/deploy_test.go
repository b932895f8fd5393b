//go:build conformance

package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// What is not understood is a failure and never left out in silence.
func TestDeployRefusesWhatItDoesNotKnow(t *testing.T) {
	for what, test := range map[string]struct {
		resource map[string]any
		want     string
	}{
		"a type": {map[string]any{"Type": "AWS::S3::Bucket"}, "AWS::S3::Bucket"},
		"a property": {map[string]any{"Type": "AWS::IAM::RolePolicy", "Properties": map[string]any{"RoleNane": "x"}},
			"RoleNane"},
		"a queue's attribute": {map[string]any{"Type": "AWS::SQS::Queue",
			"Properties": map[string]any{"VisibilityTimeOut": "1"}},
			"VisibilityTimeOut"},
		"a value": {map[string]any{"Type": "AWS::Lambda::EventInvokeConfig",
			"Properties": map[string]any{"MaximumRetryAttempts": "often"}}, "MaximumRetryAttempts"},
		"a reference": {map[string]any{"Type": "AWS::SQS::Queue",
			"Properties": map[string]any{"QueueName": map[string]any{"Ref": "Nothing"}}}, "Nothing"},
	} {
		s, err := newStack("test", map[string]any{"Resources": map[string]any{"It": test.resource}}, &cloud{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.deploy(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s that is not known: %v", what, err)
		}
	}
}

func TestWhatIsNotKeptIsNamed(t *testing.T) {
	asked := map[string]any{"A": "1", "B": map[string]any{"C": true, "D": "x"}, "E": []any{"x", "y"}, "F": "gone"}
	kept := map[string]any{"a": 1, "b": map[string]any{"c": false, "D": "x"}, "E": []any{"x"}, "f": nil}
	if got, want := notKept(asked, kept), []string{"B.C is false instead of true", "E", "F"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := notKept(asked, maps.Clone(asked)); len(got) != 0 {
		t.Errorf("of the same %q is not kept", got)
	}
}
