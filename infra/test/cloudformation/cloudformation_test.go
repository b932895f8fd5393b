package cloudformation_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
)

const template = `
Parameters:
  Minutes: {Type: Number, Default: 15}
  Name: {Type: String, Default: ""}
Conditions:
  IsNamed: !Not [!Equals [!Ref Name, ""]]
Resources:
  Function:
    Type: AWS::Lambda::Function
    DependsOn: Policy
    Properties:
      Every: !Sub "${Minutes}m of ${AWS::StackName}, ${Table.Arn}, ${Own} and ${!Literal}"
      Name: !If [IsNamed, !Ref Name, !Ref AWS::NoValue]
      Second: !Select [1, !Split [",", "a,b"]]
      Joined: !Join ["-", [a, !Ref Minutes]]
      Policy: {Condition: {StringEquals: {a: !GetAtt Table.Arn}}}
  Policy:
    Type: AWS::IAM::RolePolicy
    Properties: {Of: !Sub ["${Where}", {Where: !Ref Table}]}
  Table:
    Type: AWS::DynamoDB::Table
`

func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	root, err := cloudformation.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestResolve(t *testing.T) {
	root := parsed(t, template)
	values, err := cloudformation.Parameters(root, map[string]any{"Minutes": 5})
	if err != nil {
		t.Fatal(err)
	}
	values["AWS::StackName"], values["Own"] = "example", "this"
	scope := cloudformation.Scope{Conditions: root["Conditions"].(map[string]any), Values: values,
		Attribute: func(resource, attribute string) (any, error) {
			if resource != "Table" {
				return nil, fmt.Errorf("no resource %s", resource)
			}
			return "the " + attribute + " of " + resource, nil
		}}
	got, err := scope.Resolve(root["Resources"].(map[string]any)["Function"].(map[string]any)["Properties"])
	want := map[string]any{"Every": "5m of example, the Arn of Table, this and ${Literal}", "Second": "b", "Joined": "a-5",
		"Policy": map[string]any{"Condition": map[string]any{"StringEquals": map[string]any{"a": "the Arn of Table"}}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v\n%v", got, want, err)
	}
	for _, wrong := range []string{`!Ref Nowhere`, `!GetAtt Nowhere.Arn`, `!Sub "${Nowhere}"`, `!If [Never, a, b]`,
		`!ImportValue x`, `!Select [2, [a, b]]`} {
		if got, err := scope.Resolve(parsed(t, "a: "+wrong)["a"]); err == nil {
			t.Errorf("%s gives %v", wrong, got)
		}
	}
	if _, err := cloudformation.Parameters(root, map[string]any{"Hours": 1}); err == nil {
		t.Error("a parameter that does not exist can be set")
	}
}

func TestOrder(t *testing.T) {
	root := parsed(t, template)
	order, err := cloudformation.Order(root)
	if want := []string{"Table", "Policy", "Function"}; err != nil || !slices.Equal(order, want) {
		t.Errorf("got %v and %v, want %v", order, err, want)
	}
	root["Resources"].(map[string]any)["Table"].(map[string]any)["Properties"] = map[string]any{
		"A": []any{map[string]any{"Fn::GetAtt": []any{"Function", "Arn"}}}}
	if _, err := cloudformation.Order(root); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Errorf("a circle gives %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for what, text := range map[string]string{"a list": "- a", "a member twice": "a: 1\na: 2",
		"an alias": "a: &x 1\nb: *x", "no YAML": "a: ["} {
		if _, err := cloudformation.Parse([]byte(text)); err == nil {
			t.Errorf("%s is taken for a template", what)
		}
	}
}
