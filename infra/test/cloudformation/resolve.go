package cloudformation

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Scope is what intrinsic functions are resolved from.
type Scope struct {
	Conditions map[string]any // of the template
	Values     map[string]any // of parameters and pseudo parameters
	// Attribute gives what a resource has been made into: its attribute, or
	// what Ref gives for it where attribute is "Ref".
	Attribute func(resource, attribute string) (any, error)
}

// Parameters are the values of a template's parameters: their defaults, and
// what is overridden. It is an error to override one that there is not.
func Parameters(template map[string]any, overrides map[string]any) (map[string]any, error) {
	values := map[string]any{}
	declared, _ := template["Parameters"].(map[string]any)
	for name, parameter := range declared {
		values[name] = parameter.(map[string]any)["Default"]
	}
	for name, value := range overrides {
		if _, there := declared[name]; !there {
			return nil, fmt.Errorf("the template has no parameter %s", name)
		}
		values[name] = value
	}
	return values, nil
}

// noValue is what AWS::NoValue stands for: the member is left out.
type noValue struct{}

// Resolve resolves every intrinsic function in value.
func (s Scope) Resolve(value any) (any, error) {
	switch v := value.(type) {
	case []any:
		out := []any{}
		for _, item := range v {
			resolved, err := s.Resolve(item)
			if err != nil {
				return nil, err
			}
			if resolved != (noValue{}) {
				out = append(out, resolved)
			}
		}
		return out, nil
	case map[string]any:
		if name, argument, ok := intrinsic(v); ok {
			return s.call(name, argument)
		}
		out := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			resolved, err := s.Resolve(v[name])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if resolved != (noValue{}) {
				out[name] = resolved
			}
		}
		return out, nil
	}
	return value, nil
}

// intrinsic distinguishes a function from a mapping with one member. Policies have a
// member Condition as well, but never as text.
func intrinsic(v map[string]any) (name string, argument any, ok bool) {
	if len(v) != 1 {
		return "", nil, false
	}
	for name, argument = range v {
	}
	_, isText := argument.(string)
	return name, argument, name == "Ref" || strings.HasPrefix(name, "Fn::") || name == "Condition" && isText
}

func (s Scope) call(name string, argument any) (any, error) {
	switch name {
	case "Ref":
		return s.ref(argument.(string))
	case "Condition":
		return s.condition(argument.(string))
	case "Fn::GetAtt":
		path := argument.([]any)
		return s.Attribute(fmt.Sprint(path[0]), fmt.Sprint(path[1]))
	case "Fn::If":
		branches := argument.([]any)
		holds, err := s.condition(fmt.Sprint(branches[0]))
		if err != nil {
			return nil, err
		}
		if holds == true {
			return s.Resolve(branches[1])
		}
		return s.Resolve(branches[2])
	case "Fn::Sub":
		return s.sub(argument)
	}
	resolved, err := s.Resolve(argument)
	if err != nil {
		return nil, err
	}
	arguments, ok := resolved.([]any)
	switch {
	case name == "Fn::Equals" && ok && len(arguments) == 2:
		return fmt.Sprint(arguments[0]) == fmt.Sprint(arguments[1]), nil
	case name == "Fn::Or" && ok && len(arguments) >= 2 && len(arguments) <= 10:
		return slices.Contains(arguments, any(true)), nil
	case name == "Fn::Not" && ok && len(arguments) == 1:
		return arguments[0] == false, nil
	case name == "Fn::Join" && ok && len(arguments) == 2:
		var parts []string
		for _, part := range arguments[1].([]any) {
			parts = append(parts, fmt.Sprint(part))
		}
		return strings.Join(parts, fmt.Sprint(arguments[0])), nil
	case name == "Fn::Split" && ok && len(arguments) == 2:
		var parts []any
		for part := range strings.SplitSeq(fmt.Sprint(arguments[1]), fmt.Sprint(arguments[0])) {
			parts = append(parts, part)
		}
		return parts, nil
	case name == "Fn::Select" && ok && len(arguments) == 2:
		list, _ := arguments[1].([]any)
		var index int
		if _, err := fmt.Sscan(fmt.Sprint(arguments[0]), &index); err != nil || index < 0 || index >= len(list) {
			return nil, fmt.Errorf("Fn::Select has no element %v of %v", arguments[0], list)
		}
		return list[index], nil
	}
	return nil, fmt.Errorf("%s with %v is not known here", name, argument)
}

func (s Scope) ref(name string) (any, error) {
	if name == "AWS::NoValue" {
		return noValue{}, nil
	}
	if v, ok := s.Values[name]; ok {
		return v, nil
	}
	return s.Attribute(name, "Ref")
}

func (s Scope) condition(name string) (any, error) {
	c, ok := s.Conditions[name]
	if !ok {
		return nil, fmt.Errorf("there is no condition %s", name)
	}
	return s.Resolve(c)
}

var placeholder = regexp.MustCompile(`\$\{[^}]+\}`)

func (s Scope) sub(argument any) (any, error) {
	text, own := argument, map[string]any{}
	if pair, ok := argument.([]any); ok {
		text, own = pair[0], pair[1].(map[string]any)
	}
	var failed error
	out := placeholder.ReplaceAllStringFunc(fmt.Sprint(text), func(p string) string {
		name := p[2 : len(p)-1]
		if literal, escaped := strings.CutPrefix(name, "!"); escaped {
			return "${" + literal + "}"
		}
		var value any
		var err error
		resource, attribute, dotted := strings.Cut(name, ".")
		switch v, ok := own[name]; {
		case ok:
			value, err = s.Resolve(v)
		case dotted:
			value, err = s.Attribute(resource, attribute)
		default:
			value, err = s.ref(name)
		}
		if err != nil {
			failed = err
		}
		return fmt.Sprint(value)
	})
	return out, failed
}
