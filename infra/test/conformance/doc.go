// Package conformance runs the compiled programs against peers that this
// project did not write: moto's AWS server with the documented version rules,
// and Doorkeeper, the OAuth server in Ruby that Procore's answers resemble.
// See ../peers for both.
//
// The tests have the build tag conformance and are run by `make conformance`; only
// the tests of the models that judge histories need nothing but Go. The others need
// Debian's Doorkeeper (installed by the starter), Python 3 with moto[server], and a
// few minutes. If a peer is missing they fail and say what to install. The tests of
// files need root, to mount small disks, and Linux 5.19. They use real time, because
// neither peer can be given another clock: settings are short, and waits are bounded.
package conformance
