//go:build conformance && !soak

package conformance

const machineRotationsEach = 8 // 50 with the tag soak
