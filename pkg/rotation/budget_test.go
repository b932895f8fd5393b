//go:build !explore && !soak && !race

package rotation_test

import "time"

// plays is what `make test` tries in half a minute of processor time: every single fault of a
// rotation on every server; on the one that Procore most probably is, of each scenario
// that is not rare or long every single switch, a sample of single faults, and of some all of
// them; and of the rest a few runs with more. `make conformance` tries all of it.
func plays(name string, s scenario) []play {
	switch {
	case name == "a rotator" || s.strict() && name == "two rotators":
		return []play{{1, 0, all}, {0, 1, all}}
	case s.strict() && s.sure:
		return []play{{1, 1, some(120, 1)}}
	case s.strict() && !s.rare && !s.long:
		return []play{{0, 1, all}, {1, 0, some(100, 1)}, {1, 1, some(20, 1)}}
	case s.strict():
		return []play{{2, 2, some(8, 1)}}
	}
	return []play{{2, 2, some(4, 1)}}
}

// lastingPlays is what `make test` tries of trouble that lasts: a part.
func lastingPlays(strict bool) []play {
	if strict {
		return []play{{1, 1, lastingly(15, 1)}, {2, 1, lastingly(5, 1)}}
	}
	return []play{{1, 1, lastingly(1, 1)}}
}

// outageOffsets are how long after a sweep an hour of trouble begins.
var outageOffsets = []time.Duration{7 * time.Minute, 27 * time.Minute, 47 * time.Minute}
