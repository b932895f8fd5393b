package config

import (
	"slices"
	"strings"
)

// Output is the name of the CloudFormation stack's output with the value of a variable:
// SealKey for TOKENTURN_SEAL_KEY.
func Output(variable string) string {
	var name strings.Builder
	for word := range strings.SplitSeq(strings.TrimPrefix(variable, prefix), "_") {
		name.WriteString(word[:min(1, len(word))] + strings.ToLower(word[min(1, len(word)):]))
	}
	return name.String()
}

// InStack reports whether every stack of this version has an output for a variable.
func InStack(variable string) bool { return stackTag(variable) == "always" }

// MayBeInStack reports whether stacks have an output for a variable, always or if it is set.
func MayBeInStack(variable string) bool { return stackTag(variable) != "" }

// FromOutputs returns the variables that a stack's outputs set, and the names of the
// outputs that every stack of this version has and this one lacks.
func FromOutputs(outputs map[string]string) (variables map[string]string, missing []string) {
	variables = map[string]string{}
	for _, name := range Names() {
		switch value := outputs[Output(name)]; {
		case value != "" && stackTag(name) != "":
			variables[name] = value
		case InStack(name):
			missing = append(missing, Output(name))
		}
	}
	return variables, missing
}

// stackTag says whether stacks have an output for a variable: "always", "optional" or "".
func stackTag(variable string) string {
	all := fields()
	i := slices.IndexFunc(all, func(f field) bool { return prefix+f.Tag.Get("env") == variable })
	if i < 0 {
		return ""
	}
	return all[i].Tag.Get("stack")
}
