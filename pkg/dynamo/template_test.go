package dynamo_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
)

// The table of the template has the keys, the index and the TTL attribute that
// the requests of this package name.
func TestTheTemplatesTableIsTheOneThatRequestsName(t *testing.T) {
	content, err := os.ReadFile("../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	template, err := cloudformation.Parse(content)
	if err != nil {
		t.Fatal(err)
	}
	made := at(template, "Resources", "Table", "Properties")
	index := at(made, "GlobalSecondaryIndexes", 0)

	tab, script := table(nothing)
	if _, err := tab.Due(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Write(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	query, write := script.Calls()[0].Input, script.Calls()[1].Input
	row, event := at(write, "TransactItems", 0, "Put", "Item"), at(write, "TransactItems", 3, "Put", "Item")

	if asked, there := query["IndexName"], at(index, "IndexName"); asked != there {
		t.Errorf("the index %v is queried, the template has %v", asked, there)
	}
	names, _ := query["ExpressionAttributeNames"].(map[string]any)
	asked := slices.Sorted(func(yield func(string) bool) {
		for name := range maps.Values(names) {
			if !yield(fmt.Sprint(name)) {
				return
			}
		}
	})
	if keys := keysIn(at(index, "KeySchema")); !slices.Equal(asked, keys) {
		t.Errorf("the index is queried by %v, its keys are %v", asked, keys)
	}
	for _, key := range slices.Concat(keysIn(at(made, "KeySchema")), keysIn(at(index, "KeySchema"))) {
		if at(row, key) == nil {
			t.Errorf("a row has no %s, which is a key of the template's table or index", key)
		}
	}
	for _, defined := range at(made, "AttributeDefinitions").([]any) {
		if name, kind := at(defined, "AttributeName").(string), at(defined, "AttributeType").(string); at(row, name,
			kind) == nil {
			t.Errorf("a row has %v for %s, the template says type %s", at(row, name), name, kind)
		}
	}
	if ttl, _ := at(made, "TimeToLiveSpecification", "AttributeName").(string); at(event, ttl) == nil {
		t.Errorf("an event has no %q, by which the table would forget it", ttl)
	}
}

func keysIn(schema any) (names []string) {
	list, _ := schema.([]any)
	for _, key := range list {
		names = append(names, at(key, "AttributeName").(string))
	}
	slices.Sort(names)
	return names
}
