package console_test

import (
	"net/http"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/console"
)

// BenchmarkFirstPage loads the overview of 1,000 connections from the embedded store.
func BenchmarkFirstPage(b *testing.B) {
	s := open(b, nil)
	s.thousand()
	size := 0
	for b.Loop() {
		got := s.get("/")
		if got.status != http.StatusOK {
			b.Fatal(got.status)
		}
		size = len(got.body)
	}
	b.ReportMetric(float64(size), "bytes/page")
}

// BenchmarkFirstPageAfterAChange is the same if the list has to be read again each time.
func BenchmarkFirstPageAfterAChange(b *testing.B) {
	s := open(b, func(cfg *console.Config) { cfg.Connections = plain{cfg.Connections} })
	s.thousand()
	for b.Loop() {
		s.get("/")
	}
}

// plain hides that a store can tell whether its list has changed.
type plain struct{ console.Connections }
