package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	awscloudformation "github.com/aws/aws-sdk-go-v2/service/cloudformation"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
)

// stack is a template that is being deployed.
type stack struct {
	name     string
	template map[string]any
	cloud    *cloud
	scope    cloudformation.Scope
	made     map[string]made
	programs map[string]string // of the functions, by their names
	dropped  []string          // settings that the cloud took and did not keep
}

// made is what a resource became.
type made struct {
	kind       string
	ref        string
	attributes map[string]string // for Fn::GetAtt
	kept       any               // what the cloud says of it afterwards; nil: nothing was asked
}

// maker makes a resource of one type with one call, or as many as the type needs.
type maker func(ctx context.Context, s *stack, name string, properties map[string]any) (made, error)

func newStack(name string, template map[string]any, c *cloud) (*stack, error) {
	values, err := cloudformation.Parameters(template, nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(values, map[string]any{"AWS::StackName": name, "AWS::Region": region, "AWS::AccountId": account,
		"AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com"})
	s := &stack{name: name, template: template, cloud: c, made: map[string]made{}, programs: map[string]string{}}
	s.scope = cloudformation.Scope{Conditions: object(template["Conditions"]), Values: values, Attribute: s.attribute}
	return s, nil
}

func (s *stack) attribute(resource, attribute string) (any, error) {
	m, ok := s.made[resource]
	value := m.ref
	if attribute != "Ref" {
		value = m.attributes[attribute]
	}
	if !ok || value == "" {
		return nil, fmt.Errorf("%s of %s %s is not known", attribute, m.kind, resource)
	}
	return value, nil
}

// deploy makes every resource, in the order in which they need each other.
func (s *stack) deploy(ctx context.Context) error {
	order, err := cloudformation.Order(s.template)
	if err != nil {
		return err
	}
	for _, name := range order {
		r := object(object(s.template["Resources"])[name])
		kind := fmt.Sprint(r["Type"])
		make, known := makers[kind]
		if !known {
			return fmt.Errorf("%s: nobody knows how to make a resource of type %s here", name, kind)
		}
		resolved, err := s.scope.Resolve(r["Properties"])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		properties := object(resolved)
		m, err := make(ctx, s, name, maps.Clone(properties))
		if err != nil {
			return fmt.Errorf("making %s, of type %s: %w", name, kind, err)
		}
		m.kind = kind
		s.made[name] = m
		if m.kept != nil {
			for _, what := range notKept(properties, m.kept) {
				s.dropped = append(s.dropped, fmt.Sprintf("moto does not keep %s of %s (%s)", what, name, kind))
			}
		}
	}
	return nil
}

// counts says how many resources of each type there are.
func (s *stack) counts() string {
	count := map[string]int{}
	for _, m := range s.made {
		count[strings.TrimPrefix(m.kind, "AWS::")]++
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d %s", count[kind], kind))
	}
	return strings.Join(parts, ", ")
}

// outputs works out the outputs of the stack.
func (s *stack) outputs() (map[string]output, error) {
	all := map[string]output{}
	for name, declared := range object(s.template["Outputs"]) {
		if condition := object(declared)["Condition"]; condition != nil {
			there, err := s.scope.Resolve(map[string]any{"Fn::If": []any{condition, true, false}})
			if err != nil {
				return nil, fmt.Errorf("output %s: %w", name, err)
			}
			if there != true {
				continue
			}
		}
		value, err := s.scope.Resolve(object(declared)["Value"])
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
		all[name] = output{fmt.Sprint(value), fmt.Sprint(object(declared)["Description"])}
	}
	return all, nil
}

// describe gives moto a stack of this name that has these outputs, as DescribeStacks would
// answer after CloudFormation had deployed the template. Its resources exist already.
func (s *stack) describe(ctx context.Context, outputs map[string]output) error {
	literal := map[string]any{}
	for name, o := range outputs {
		literal[name] = map[string]any{"Value": o.value}
	}
	body := jsonOf(map[string]any{"Resources": map[string]any{
		"Nothing": map[string]any{"Type": "AWS::CloudFormation::WaitConditionHandle"}}, "Outputs": literal})
	_, err := s.cloud.stacks.CreateStack(ctx, &awscloudformation.CreateStackInput{StackName: &s.name, TemplateBody: &body})
	return err
}

type output struct{ value, description string }

// decode gives properties the form of an SDK's input. Its members most often
// have the same names. A property that the input does not have is an error.
func decode[T any](properties map[string]any) (*T, error) {
	text, err := json.Marshal(properties)
	if err != nil {
		return nil, err
	}
	var in T
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return &in, d.Decode(&in)
}

// take removes a property and returns it.
func take(properties map[string]any, name string) any {
	value := properties[name]
	delete(properties, name)
	return value
}

// nothingLeft is an error if there are properties that no maker used.
func nothingLeft(properties map[string]any) error {
	if len(properties) > 0 {
		return fmt.Errorf("properties that are not known here: %v", slices.Sorted(maps.Keys(properties)))
	}
	return nil
}

func jsonOf(value any) string {
	text, _ := json.Marshal(value)
	return string(text)
}

func object(value any) map[string]any {
	m, _ := value.(map[string]any)
	return m
}

func list(value any) []any {
	l, _ := value.([]any)
	return l
}
