package dynamo_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
)

func TestAnAnnouncementIsOneUpdate(t *testing.T) {
	tab, script := table(func(awstest.Call) (any, error) { return map[string]any{}, nil })
	first, err := tab.First(t.Context(), "config_error sandbox", noon, noon.Add(time.Hour))
	if err != nil || !first {
		t.Errorf("got %t, %v", first, err)
	}
	if made := script.Operations(); !slices.Equal(made, []string{"UpdateItem"}) {
		t.Errorf("asked for %v", made)
	}
	if key := fmt.Sprint(script.Calls()[0].Input["Key"]); key != "map[pk:map[S:NOTICE#config_error sandbox] sk:map[S:NOTICE]]" {
		t.Errorf("it is kept at %v", key)
	}
}
