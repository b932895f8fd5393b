package dynamo_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
)

func TestAReservationIsOneUpdateWhileTheClockIsAhead(t *testing.T) {
	at := noon.Add(3 * time.Second)
	tab, script := table(func(awstest.Call) (any, error) {
		return map[string]any{"Attributes": map[string]any{"next": map[string]any{
			"N": fmt.Sprint(at.Add(time.Second).UnixNano())}}}, nil
	})
	got, err := tab.Reserve(t.Context(), "sandbox", noon, time.Second)
	if err != nil || !got.Equal(at) {
		t.Errorf("got %v and %v, want %v", got, err, at)
	}
	if made := script.Operations(); !slices.Equal(made, []string{"UpdateItem"}) {
		t.Errorf("asked for %v", made)
	}
	if key := fmt.Sprint(script.Calls()[0].Input["Key"]); key != "map[pk:map[S:PACE#sandbox] sk:map[S:PACE]]" {
		t.Errorf("the clock is at %v", key)
	}
}
