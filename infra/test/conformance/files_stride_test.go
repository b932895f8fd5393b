//go:build conformance && linux && !soak

package conformance

// fileStride leaves out most faults: the others are for `make soak`.
const fileStride = 5
