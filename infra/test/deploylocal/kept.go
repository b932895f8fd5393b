package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
)

// notKept compares what was asked for with what the cloud says there is, and
// names what is missing or different, as far as both call it the same.
func notKept(asked map[string]any, kept any) []string {
	there, err := cloudformation.FromJSON([]byte(jsonOf(kept)))
	if err != nil {
		return []string{err.Error()}
	}
	return missing("", asked, there)
}

func missing(path string, asked, there any) (names []string) {
	switch a := asked.(type) {
	case map[string]any:
		if text, ok := there.(string); ok { // a policy, as text
			if document, err := cloudformation.FromJSON([]byte(text)); err == nil {
				there = document
			}
		}
		for _, name := range slices.Sorted(maps.Keys(a)) {
			value, found := member(there, name)
			if !found {
				names = append(names, strings.TrimPrefix(path+"."+name, "."))
				continue
			}
			names = append(names, missing(path+"."+name, a[name], value)...)
		}
	case []any:
		t, _ := there.([]any)
		if len(t) < len(a) {
			return []string{strings.TrimPrefix(path, ".")}
		}
		for i := range a {
			if _, isObject := a[i].(map[string]any); isObject && len(a) == len(t) {
				names = append(names, missing(fmt.Sprintf("%s[%d]", path, i), a[i], t[i])...)
			}
		}
	default:
		if !strings.EqualFold(fmt.Sprint(asked), fmt.Sprint(there)) {
			names = append(names, fmt.Sprintf("%s is %v instead of %v", strings.TrimPrefix(path, "."), there, asked))
		}
	}
	return names
}

// member finds a member by name, in either case; SDKs leave null what is not there.
func member(of any, name string) (any, bool) {
	for key, value := range object(of) {
		if strings.EqualFold(key, name) && value != nil {
			return value, true
		}
	}
	return nil, false
}
