//go:build !explore && !soak && !race

package rotation_test

import "time"

// plays is what `go test` tries: every single fault of a rotation on every
// server; on the one that Procore most probably is, every single fault and every single
// switch of every scenario that is not rare or long, some runs with both at once, and of
// some scenarios each of those; and of the rest a few runs with more.
func plays(name string, s scenario) []play {
	switch {
	case s.strict() && s.sure:
		return []play{{1, 1, all}}
	case s.strict() && !s.rare && !s.long:
		return []play{{0, 1, all}, {1, 0, all}, {1, 1, some(20, 1)}}
	case name == "a rotator":
		return []play{{1, 0, all}}
	}
	return []play{{2, 2, some(20, 1)}}
}

// lastingPlays is what `go test` tries of trouble that lasts: a part.
func lastingPlays(strict bool) []play {
	if strict {
		return []play{{1, 1, lastingly(40, 1)}, {2, 1, lastingly(15, 1)}}
	}
	return []play{{1, 1, lastingly(3, 1)}}
}

// outageOffsets are how long after a sweep an hour of trouble begins.
var outageOffsets = []time.Duration{7 * time.Minute, 27 * time.Minute, 47 * time.Minute}
