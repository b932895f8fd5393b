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

// BenchmarkWarmLatency reports the 99th percentile of one call while 10,000 goroutines,
// started at once, make ten calls each. It fails at 50 us or more.
func BenchmarkWarmLatency(b *testing.B) {
	source := warm(b)
	const goroutines, calls = 10_000, 10
	took := make([]time.Duration, goroutines*calls)
	for b.Loop() {
		gate := make(chan struct{})
		var all sync.WaitGroup
		for each := range slices.Chunk(took, calls) {
			all.Go(func() {
				<-gate
				for i := range each {
					began := time.Now()
					_, _ = source.Token()
					each[i] = time.Since(began)
				}
			})
		}
		close(gate)
		all.Wait()
	}
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	b.ReportMetric(float64(p99.Nanoseconds()), "p99-ns")
	if p99 >= 50*time.Microsecond {
		b.Errorf("the 99th percentile is %v", p99)
	}
}
