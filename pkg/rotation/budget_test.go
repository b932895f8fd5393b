//go:build !explore && !soak && !race

package rotation_test

// plays is what `go test` tries: every single fault of a rotation on every
// server, every single fault and every single switch of every scene on the one
// that Procore most probably is, and of the others a few runs with more.
func plays(scene, server string) []play {
	switch {
	case server == "ends the old pair at once":
		return []play{{0, 1, all}, {1, 0, all}}
	case scene == "a rotator":
		return []play{{1, 0, all}}
	}
	return []play{{2, 2, some(20, 1)}}
}
