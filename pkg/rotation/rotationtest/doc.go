// Package rotationtest is the test harness of package rotation.
//
// It has four layers, each usable alone:
//
//   - Contract suites (TestLedger, TestSecretStore, TestSealer), which every
//     implementation of a port runs, and their Repeats forms for stores behind a
//     network, whose client may deliver a write twice.
//   - Fakes of every port with the rules of the real service. Each call of a
//     fake passes a Gate before and a gate after its effect, and each effect is
//     an entry of a Journal. What a process is (who asked for it, when it ends,
//     how wrong its clock is) travels in its context: WithActor, Scheduled,
//     Within, OffBy.
//   - Search and Explore, which run a world under every list of choices,
//     and Driver, which lets one actor at a time through its gates and
//     turns faults and context switches into such choices.
//   - Check, CheckAtRest and CheckRepaired, which read the journal and say which
//     invariant of the protocol it breaks, and Calls, which counts.
//
// Time is that of time.Now, so a test of any length runs in a moment inside
// testing/synctest.
package rotationtest
