//go:build soak

package rotation_test

// `make soak` tries every pair of faults, and as much of what two rotators can
// do to each other as an evening allows.
const (
	exploredRuns = 20_000
	randomRuns   = 20_000
)
