package infra_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
)

// template is template.yaml as plain values.
type template struct{ root map[string]any }

type resource map[string]any

func (t template) resource(name string) resource {
	return object(object(t.root["Resources"])[name])
}

func (t template) ofType(kind string) map[string]resource {
	out := map[string]resource{}
	for name := range object(t.root["Resources"]) {
		if r := t.resource(name); r["Type"] == kind {
			out[name] = r
		}
	}
	return out
}

// at follows a dotted path through the properties; nil if there is nothing.
func (r resource) at(path string) any {
	value := r["Properties"]
	for name := range strings.SplitSeq(path, ".") {
		value = object(value)[name]
	}
	return value
}

func (r resource) differs(path string, want any) []string {
	if got := r.at(path); !reflect.DeepEqual(got, want) {
		return []string{fmt.Sprintf("%s is %v and not %v", path, got, want)}
	}
	return nil
}

// withoutEvents is the template's resources except the events of functions, which SAM
// turns into separate resources.
func (t template) withoutEvents() map[string]any {
	resources := map[string]any{}
	for name := range object(t.root["Resources"]) {
		r := maps.Clone(t.resource(name))
		properties := maps.Clone(object(r["Properties"]))
		delete(properties, "Events")
		r["Properties"] = properties
		resources[name] = map[string]any(r)
	}
	return resources
}

// statement is one statement of any policy in the template.
type statement struct {
	where                 string
	body                  map[string]any
	actions               []string
	principals, resources []any
	isKeyPolicy           bool
}

func (s statement) resourceText() string { return strings.Join(s.resourceTexts(), " ") }

// resourceTexts gives each resource as it is written, without the name of the function round it.
func (s statement) resourceTexts() (all []string) {
	for _, r := range s.resources {
		if literal, ok := r.(string); ok {
			all = append(all, literal)
		}
		for _, argument := range object(r) {
			all = append(all, fmt.Sprint(argument))
		}
	}
	return all
}

// goesBeyond reports whether a resource is not within what part names.
func (s statement) goesBeyond(part string) bool {
	return slices.ContainsFunc(s.resourceTexts(), func(r string) bool { return !strings.Contains(r, part) })
}

// statements finds every statement, wherever a policy may be.
func (t template) statements() (all []statement) {
	for _, name := range slices.Sorted(maps.Keys(object(t.root["Resources"]))) {
		properties := object(t.resource(name)["Properties"])
		all = append(all, statements(name+" trust", properties["AssumeRolePolicyDocument"])...)
		all = append(all, statements(name, properties["PolicyDocument"])...)
		for _, s := range statements(name, properties["KeyPolicy"]) {
			s.isKeyPolicy = true
			all = append(all, s)
		}
		for _, inline := range list(properties["Policies"]) {
			all = append(all, statements(name, object(inline)["PolicyDocument"])...)
		}
	}
	return all
}

// policy is what a policy allows, with the inline policies of its role.
func (t template) policy(name string) []statement {
	all := statements(name, t.resource(name).at("PolicyDocument"))
	role := text(object(t.resource(name).at("RoleName"))["Ref"])
	for _, inline := range list(t.resource(role).at("Policies")) {
		all = append(all, statements(role, object(inline)["PolicyDocument"])...)
	}
	return all
}

func (t template) keyPolicy(name string) []statement {
	return statements(name, t.resource(name).at("KeyPolicy"))
}

func statements(where string, policy any) (all []statement) {
	for i, item := range list(object(policy)["Statement"]) {
		body := object(item)
		if choice := list(body["Fn::If"]); choice != nil {
			body = object(choice[1])
		}
		s := statement{where: fmt.Sprintf("%s, statement %d %v", where, i, body["Sid"]), body: body,
			actions: texts(list(body["Action"])), resources: list(body["Resource"])}
		if principal, ok := body["Principal"].(string); ok {
			s.principals = []any{principal}
		}
		for _, principals := range object(body["Principal"]) {
			s.principals = append(s.principals, list(principals)...)
		}
		all = append(all, s)
	}
	return all
}

// environment resolves the environment of a function for given parameters, as
// CloudFormation does, in the form of os.Environ.
func (t template) environment(function string, parameters map[string]any) []string {
	values := t.values(parameters)
	variables := maps.Clone(object(resource{"Properties": object(t.root["Globals"])}.at("Function.Environment.Variables")))
	maps.Copy(variables, object(t.resource(function).at("Environment.Variables")))
	var environ []string
	for name, value := range variables {
		environ = append(environ, name+"="+text(t.resolve(value, values)))
	}
	return environ
}

// values are what a Ref gives in the stack "example": the pseudo parameters,
// and the parameters, which have their defaults unless given.
func (t template) values(given map[string]any) map[string]any {
	values := map[string]any{"AWS::StackName": "example", "AWS::Region": "us-east-1", "AWS::AccountId": "111122223333",
		"AWS::Partition": "aws"}
	for name, parameter := range object(t.root["Parameters"]) {
		values[name] = object(parameter)["Default"]
	}
	maps.Copy(values, given)
	return values
}

// resolve resolves the intrinsic functions in value. What cannot be resolved becomes
// a text that nothing accepts.
func (t template) resolve(value any, values map[string]any) any {
	resolved, err := cloudformation.Scope{Conditions: object(t.root["Conditions"]), Values: values,
		Attribute: t.identity}.Resolve(value)
	if err != nil {
		return err.Error()
	}
	return resolved
}

// resolved is a resource with the intrinsic functions of its properties resolved, each by itself: what cannot be
// resolved becomes a text.
func (t template) resolved(name string, parameters map[string]any) resource {
	r := t.resource(name)
	properties, values := map[string]any{}, t.values(parameters)
	for property, value := range object(r["Properties"]) {
		maps.Copy(properties, object(t.resolve(map[string]any{property: value}, values)))
	}
	return resource{"Type": r["Type"], "Properties": properties}
}

// identity is what AWS would give a resource for a Ref or an attribute.
func (t template) identity(name, attribute string) (any, error) {
	kind := text(t.resource(name)["Type"])
	switch kind + " " + attribute {
	case "AWS::DynamoDB::Table Ref", "AWS::Serverless::Function Ref", "AWS::SQS::Queue QueueName",
		"AWS::Logs::LogGroup Ref":
		return "example-" + name, nil
	case "AWS::KMS::Key Arn":
		return "arn:aws:kms:us-east-1:111122223333:key/" + name, nil
	case "AWS::SQS::Queue Ref":
		return "https://sqs.us-east-1.amazonaws.com/111122223333/example-" + name, nil
	case "AWS::SNS::Topic Ref":
		return "arn:aws:sns:us-east-1:111122223333:example-" + name, nil
	case "AWS::ApiGatewayV2::Api Ref":
		return "abcdefghij", nil
	case "AWS::ApiGatewayV2::Api ApiEndpoint":
		return "https://abcdefghij.execute-api.us-east-1.amazonaws.com", nil
	}
	return nil, fmt.Errorf("nobody knows %s of %s", attribute, name)
}

func object(value any) map[string]any {
	m, _ := value.(map[string]any)
	if r, ok := value.(resource); ok {
		m = r
	}
	return m
}

var list = cloudformation.List

func text(value any) string { return fmt.Sprint(value) }

func texts(values []any) (all []string) {
	for _, v := range values {
		all = append(all, text(v))
	}
	return all
}
