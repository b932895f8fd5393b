//go:build soak

package rotation_test

import "time"

// plays is what `make soak` tries: every fault and switch of every scenario, every
// pair of faults of a rotation, of two, and of one with its recovery, and random runs with more of
// both, with another seed each time.
func plays(name string, s scenario) []play {
	tried := []play{{3, 3, some(5000, uint64(time.Now().UnixNano()))}}
	switch {
	case s.long:
		return tried
	case name == "a rotator", name == "two rotators", name == "a rotator and its recovery":
		tried = append(tried, play{2, 0, all})
	}
	return append(tried, play{1, 1, all})
}

// lastingPlays is what to try of trouble that lasts: each kind alone, and many pairs.
func lastingPlays(bool) []play {
	return []play{{1, 1, all}, {2, 1, lastingly(20_000, uint64(time.Now().UnixNano()))}}
}

// outageOffsets are how long after a sweep an hour of trouble begins.
var outageOffsets = func() (offsets []time.Duration) {
	for minute := 2; minute < 60; minute += 5 {
		offsets = append(offsets, time.Duration(minute)*time.Minute)
	}
	return offsets
}()
