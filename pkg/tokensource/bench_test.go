package tokensource_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/tokensourcetest"
)

func warm(b *testing.B) *tokensource.Source {
	source, err := tokensource.New(tokensourcetest.New(acme), acme)
	if err == nil {
		_, err = source.Token()
	}
	if err != nil {
		b.Fatal(err)
	}
	return source
}

func BenchmarkWarmToken(b *testing.B) {
	source := warm(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := source.Token(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWarmTokenParallel(b *testing.B) {
	source := warm(b)
	b.SetParallelism(5000)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := source.Token(); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkWarmLatency reports the 99th percentile of one call among 10,000 goroutines.
func BenchmarkWarmLatency(b *testing.B) {
	source := warm(b)
	const goroutines = 10_000
	took := make([]time.Duration, goroutines)
	for b.Loop() {
		var all sync.WaitGroup
		for i := range took {
			all.Go(func() {
				began := time.Now()
				source.Token()
				took[i] = time.Since(began)
			})
		}
		all.Wait()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[goroutines*99/100].Nanoseconds()), "p99-ns")
}
