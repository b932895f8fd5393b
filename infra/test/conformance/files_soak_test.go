//go:build conformance && linux && soak

package conformance

// fileStride tries every fault.
const fileStride = 1
