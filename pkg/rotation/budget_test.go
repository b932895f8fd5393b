//go:build !soak

package rotation_test

// How much of the trees of choices `make test` tries beside all single faults.
const (
	exploredRuns = 300
	randomRuns   = 100
)
