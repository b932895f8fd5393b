package dynamo_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
)

func TestAClaimIsOneUpdate(t *testing.T) {
	tab, script := table(func(awstest.Call) (any, error) { return map[string]any{}, nil })
	first, err := tab.First(t.Context(), "config_error sandbox", noon, noon.Add(time.Hour))
	if err != nil || !first {
		t.Errorf("got %t, %v", first, err)
	}
	if made := script.Operations(); !slices.Equal(made, []string{"UpdateItem"}) {
		t.Errorf("asked for %v", made)
	}
	if key := fmt.Sprint(script.Calls()[0].Input["Key"]); key != "map[pk:map[S:NOTICE#config_error sandbox] "+
		"sk:map[S:NOTICE]]" {
		t.Errorf("it is kept at %v", key)
	}
}

// A claim that the client repeated after a lost answer succeeds; another process's claim
// does not.
func TestARepeatedClaimIsTheClaimantsOwn(t *testing.T) {
	for _, own := range []bool{true, false} {
		tab, _ := table(func(c awstest.Call) (any, error) {
			nonce := map[string]any{"S": "another"}
			for _, value := range c.Input["ExpressionAttributeValues"].(map[string]any) {
				if own && at(value, "S") != nil {
					nonce["S"] = at(value, "S")
				}
			}
			claimed := map[string]any{"Item": map[string]any{"nonce": nonce}}
			return nil, awstest.Fault{Code: "ConditionalCheckFailedException", More: claimed}
		})
		if first, err := tab.First(t.Context(), "e", noon, noon.Add(time.Hour)); err != nil || first != own {
			t.Errorf("refused by a claim that is one's own: %t; got %t, %v", own, first, err)
		}
	}
}
