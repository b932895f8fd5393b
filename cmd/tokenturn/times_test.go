package main

import (
	"testing"
	"time"
)

func TestDistance(t *testing.T) {
	now := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{0: "in 0s", 90 * time.Second: "in 90s", -time.Minute: "60s ago",
		59 * time.Minute: "in 59m", -119 * time.Minute: "119m ago", 72 * time.Hour: "in 72h"} {
		if got := distance(now.Add(d), now); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
