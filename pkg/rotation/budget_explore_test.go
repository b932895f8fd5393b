//go:build explore && !soak

package rotation_test

import "time"

// plays is what two processors try in about two minutes: every single fault of
// every scenario on every server (of rare ones on one), some runs with more, and, on
// a server that ends the old pair at once, every single switch of every scenario,
// every pair of faults of a rotation and many of two, and of some scenarios every
// fault with every switch.
func plays(name string, s scenario) []play {
	several := play{2, 2, some(10, 2)}
	switch {
	case !s.strict() && s.rare, s.long:
		return []play{several}
	case !s.strict():
		return []play{{1, 0, all}, several}
	case s.sure:
		return []play{{1, 1, all}, {1, 0, all}, several}
	case name == "a rotator":
		return []play{{2, 0, all}, {1, 0, all}, several}
	case name == "two rotators":
		return []play{{2, 0, some(6000, 2)}, {1, 0, all}, {0, 1, all}, several}
	}
	return []play{{1, 0, all}, {0, 1, all}, {1, 1, some(20, 2)}, several}
}

// lastingPlays is what to try of trouble that lasts: every single one and many pairs.
func lastingPlays(strict bool) []play {
	if strict {
		return []play{{1, 0, all}, {2, 1, lastingly(100, 2)}}
	}
	return []play{{1, 1, lastingly(20, 2)}, {2, 1, lastingly(10, 2)}}
}

// outageOffsets are how long after a sweep an hour of trouble begins.
var outageOffsets = func() (offsets []time.Duration) {
	for minute := 2; minute < 60; minute += 5 {
		offsets = append(offsets, time.Duration(minute)*time.Minute)
	}
	return offsets
}()
