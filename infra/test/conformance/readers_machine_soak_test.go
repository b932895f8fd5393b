//go:build conformance && soak

package conformance

const machineRotationsEach = 50 // of two connections
