//go:build explore && !soak

package rotation_test

// plays is what two processors try in about two minutes: every single fault of
// every scene on every server, some runs with more, and, on a server that ends
// the old pair at once, every single switch of every scene and every pair of
// faults of one rotation and of two.
func plays(scene, server string) []play {
	tried := []play{{1, 0, all}, {2, 2, some(30, 2)}}
	if server != "ends the old pair at once" {
		return tried
	}
	tried = append(tried, play{0, 1, all})
	switch scene {
	case "a rotator", "two rotators":
		tried = append(tried, play{2, 0, all})
	}
	return tried
}
