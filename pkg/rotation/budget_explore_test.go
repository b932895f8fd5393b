//go:build explore && !soak

package rotation_test

// plays is what takes two minutes: every single fault of every scene on every
// server, some runs with more, and, on a server that ends the old pair at once,
// every pair of faults of a rotation and every fault and switch of two.
func plays(scene, server string) []play {
	tried := []play{{1, 0, all}, {2, 2, some(30, 2)}}
	if server != "ends the old pair at once" {
		return tried
	}
	switch scene {
	case "a rotator":
		tried = append(tried, play{2, 0, all})
	case "two rotators":
		tried = append(tried, play{1, 1, all})
	}
	return tried
}
