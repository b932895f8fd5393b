// Package cloudformation reads templates of AWS CloudFormation and SAM as plain
// values, resolves their intrinsic functions, and orders their resources so that
// they can be created. It knows the functions that this project's templates
// use; any other is an error.
package cloudformation

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse turns a template in YAML into maps, lists and values, with the short
// tags of intrinsic functions in their long form.
func Parse(content []byte) (map[string]any, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, err
	}
	root, err := plain(&document)
	if err != nil {
		return nil, err
	}
	template, ok := root.(map[string]any)
	if !ok {
		return nil, errors.New("the template is not a mapping")
	}
	return template, nil
}

// List also makes a list of a single value, as policies and Fn::Sub allow.
func List(value any) []any {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{value}
}

func plain(n *yaml.Node) (any, error) {
	if short, ok := strings.CutPrefix(n.Tag, "!"); ok && !strings.HasPrefix(n.Tag, "!!") {
		return function(short, n)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return plain(n.Content[0])
	case yaml.AliasNode:
		return nil, fmt.Errorf("line %d: CloudFormation knows no YAML aliases", n.Line)
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			value, err := plain(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			if out[n.Content[i].Value] != nil {
				return nil, fmt.Errorf("line %d: %s is there twice", n.Content[i].Line, n.Content[i].Value)
			}
			out[n.Content[i].Value] = value
		}
		return out, nil
	case yaml.SequenceNode:
		out := []any{}
		for _, item := range n.Content {
			value, err := plain(item)
			if err != nil {
				return nil, err
			}
			out = append(out, value)
		}
		return out, nil
	case yaml.ScalarNode:
		var value any
		err := n.Decode(&value)
		return value, err
	}
	return nil, errors.New("not YAML")
}

func function(short string, n *yaml.Node) (any, error) {
	bare := *n
	bare.Tag = map[yaml.Kind]string{yaml.ScalarNode: "!!str", yaml.SequenceNode: "!!seq",
		yaml.MappingNode: "!!map"}[n.Kind]
	argument, err := plain(&bare)
	if err != nil {
		return nil, err
	}
	switch short {
	case "Ref", "Condition":
		return map[string]any{short: argument}, nil
	case "GetAtt":
		resource, attribute, _ := strings.Cut(fmt.Sprint(argument), ".")
		return map[string]any{"Fn::GetAtt": []any{resource, attribute}}, nil
	}
	return map[string]any{"Fn::" + short: argument}, nil
}
