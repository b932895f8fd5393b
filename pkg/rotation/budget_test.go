//go:build !explore && !soak && !race

package rotation_test

// plays is what `go test` tries: every single fault of a rotation on every
// server and of every scene on the one that Procore most probably is, and of
// the others a few runs with more faults.
func plays(scene, server string) []play {
	if scene == "a rotator" || server == "ends the old pair at once" {
		return []play{{1, 0, all}}
	}
	return []play{{2, 2, some(25, 1)}}
}
