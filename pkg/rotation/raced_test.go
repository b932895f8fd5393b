//go:build race

package rotation_test

// raced: the race detector makes long stories ten times slower, and finds nothing in them
// that shorter ones do not have. `make test` plays the long ones without it.
const raced = true
