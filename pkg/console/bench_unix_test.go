//go:build unix

package console_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/console"
)

// BenchmarkIdle keeps ten browsers up to date with 1,000 connections that do not change, for three
// seconds, and reports the share of one processor that it takes.
func BenchmarkIdle(b *testing.B) {
	s := open(b, func(cfg *console.Config) { cfg.Interval = time.Second })
	s.thousand()
	for range 10 {
		s.follow("").update(b)
	}
	busy := func() time.Duration {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			b.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	for b.Loop() {
		before, began := busy(), time.Now()
		ctx, cancel := context.WithTimeout(b.Context(), 3*time.Second)
		<-ctx.Done()
		cancel()
		b.ReportMetric(100*float64(busy()-before)/float64(time.Since(began)), "%cpu")
	}
}
