//go:build !explore && !soak && race

package rotation_test

import "time"

// plays is little under the race detector, which the explorer's one actor at a
// time gives hardly anything to find; `make test` runs the explorer without
// it, too.
func plays(_ string, s scenario) []play {
	if !s.strict() && s.rare {
		return nil
	}
	return []play{{2, 2, some(2, 1)}}
}

func lastingPlays(strict bool) []play {
	if strict {
		return []play{{2, 1, lastingly(3, 1)}}
	}
	return nil
}

// outageOffsets are how long after a sweep an hour of trouble begins.
var outageOffsets = []time.Duration{47 * time.Minute}
