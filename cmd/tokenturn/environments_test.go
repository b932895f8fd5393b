package main

import (
	"testing"

	"github.com/tokenturn/tokenturn/pkg/procore"
)

// Every environment of Procore can be set with id, secret and redirect URI alone.
func TestProcoreEnvironmentsNeedNoURLs(t *testing.T) {
	for _, e := range procore.Environments() {
		if _, own := procoreEnvironment(e.Name); !own {
			t.Errorf("%s is asked for its URLs", e.Name)
		}
	}
	if _, own := procoreEnvironment("demo"); own {
		t.Error("demo is not one of Procore's environments")
	}
}
