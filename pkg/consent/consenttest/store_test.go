package consenttest

import (
	"testing"

	"github.com/tokenturn/tokenturn/pkg/consent"
)

func TestFakeStore(t *testing.T) {
	TestStore(t, func(*testing.T) consent.Store { return &Store{} })
}
