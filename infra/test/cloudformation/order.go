package cloudformation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Order lists the resources of a template so that each comes after those that
// it refers to or depends on. A circle is an error, as it is to CloudFormation.
func Order(template map[string]any) ([]string, error) {
	resources, _ := template["Resources"].(map[string]any)
	var order, path []string
	done := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		switch {
		case done[name]:
			return nil
		case slices.Contains(path, name):
			return fmt.Errorf("resources depend on each other in a circle: %s", strings.Join(append(path, name), ", "))
		}
		path = append(path, name)
		for _, needed := range Needs(resources[name], resources) {
			if err := visit(needed); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		done[name] = true
		order = append(order, name)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// Needs lists the resources that value refers to or depends on, some perhaps
// twice.
func Needs(value any, resources map[string]any) (names []string) {
	add := func(name string) {
		name, _, _ = strings.Cut(name, ".")
		if _, there := resources[name]; there {
			names = append(names, name)
		}
	}
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			names = append(names, Needs(item, resources)...)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			switch argument := v[key].(type) {
			case string:
				switch key {
				case "Ref", "DependsOn":
					add(argument)
				case "Fn::Sub":
					for _, p := range placeholder.FindAllString(argument, -1) {
						add(p[2 : len(p)-1])
					}
				}
			case []any:
				names = append(names, Needs(argument, resources)...)
				for i, item := range argument {
					switch text, isText := item.(string); {
					case key == "DependsOn" && isText, key == "Fn::GetAtt" && i == 0:
						add(text)
					case key == "Fn::Sub" && i == 0:
						names = append(names, Needs(map[string]any{key: text}, resources)...)
					}
				}
			default:
				names = append(names, Needs(argument, resources)...)
			}
		}
	}
	return names
}
