// Package rotationtest is the test harness of package rotation.
//
// It has four layers, each usable alone:
//
//   - Contract suites (TestLedger, TestSecretStore, TestSealer, TestRateLimiter,
//     TestNoticeClaims), which every implementation of a port runs. Their Repeats forms
//     are for stores behind a network, where a client may deliver a write twice.
//   - Fakes of every port with the rules of the real service. Each call of a fake passes
//     a Gate before and after its effect, and each effect is an entry of a Journal. The
//     facts about a process (who requested it, when it ends, how wrong its clock is)
//     are in its context: WithActor, Scheduled, Within, OffBy.
//   - Search and Explore, which run a world under every list of choices, and Driver,
//     which lets one actor at a time through its gates and makes choices of faults and
//     context switches.
//   - Check, CheckAtRest and CheckRepaired, which read the journal and report the broken
//     invariants of the protocol, and Calls, which counts calls.
//
// At rest means: faults have stopped, and enough sweeps have passed that no step is left.
//
// Time is that of time.Now, so a test of any length runs in a moment inside
// testing/synctest.
package rotationtest
