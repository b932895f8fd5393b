// Package rotation keeps a connection's token pair fresh. It never presents a
// refresh token twice by mistake, and it never loses a pair that any store could
// have kept.
//
// # The rules
//
// A refresh token works once. Presenting it invalidates it, whether or not the
// answer arrives, and only the server knows the new pair, so nothing can be
// written ahead. Three rules follow.
//
//  1. Fence presenting, never saving. Only the holder of a live [Attempt] may
//     present a token. Anybody who receives an answer may always save it.
//  2. Save first, judge later, publish last. The raw answer is a durable, sealed
//     [TokenResponse] before it is parsed, decided or used.
//  3. One store decides. The [Ledger] names the successor by lineage, that is by
//     its parent's fingerprint. The [SecretStore] only shows what was decided.
//
// From these follows the successor rule: while a response is [Saved] or
// [Quarantined] that has the current refresh token as its parent, this token is
// not presented.
//
// # Steps
//
// Every run handles a connection in one loop: load, plan, act, until there is
// nothing to do. plan is a pure function of the record, its responses, the time,
// what was requested, and what this run has done already. It makes a list of
// moves, each a [Step] with the time from which it may be taken, and takes the
// first move that is due. [Record.DueAt] is the earliest time in the same list, so
// no state has a step without a time at which a run comes for it.
//
//	step        applies                                                  what it does
//	Decide      a saved response is a new consent, or answers the        check it; make it current, quarantine or
//	            current refresh token; each one on its own, the higher   reject it
//	            epoch first, then the earliest
//	Publish     the secret store does not show the current pair          put the version, move AWSCURRENT, write that
//	                                                                     it is done
//	Quarantine  a response to the current refresh token is quarantined   wait for a person
//	Wait        another attempt is live, or the quiet period or a        nothing
//	            failure's wait is not over
//	Recover     an attempt has ended without a known result, or the      search the secret store for a successor and
//	            issuer has refused the token                             copy it to the ledger
//	Redeem      the current pair is due, or a refused token is due to    preflight, begin an attempt, POST once, save
//	            be tried again
//	Revoke      a live response can no longer be decided, or the time    revoke it, then delete its bytes; search for
//	            to search for more of them has come                      late answers
//	Nothing     otherwise                                                report the connection's status
//
// Publish, Quarantine, Wait, Recover and Redeem exclude each other. A consent that
// waits to be decided does not hold them up.
//
// Recovery takes the same steps as normal operation: a run that finds what another
// run left does what that run would have done next.
//
//	crash                               left behind                       what the next run does
//	before Begin's write                nothing                           Redeem
//	after it, before the POST           an attempt                        Wait, Recover; after the quiet period Redeem
//	after the POST, before the answer   an attempt; perhaps spent (W1)    the same; the server may refuse the token
//	answer in memory, not saved (W2)    an attempt; spent                 the same
//	after Save                          a response                        Decide
//	answer saved in the secret store    an escrow version                 Recover copies it to the ledger, Decide
//	after Decide's write                a current pair, not published     Publish
//	in Publish, before its write        perhaps a version, perhaps moved  Publish: same bytes, same id, no effect
//	after Publish's write               nothing                           nothing
//
// Presenting again after an unknown result is never worse than not presenting, if
// no successor is saved anywhere and the first request can no longer arrive. Either
// the server never saw the first request and the token works, or the server refuses
// it, or the server lets the old token live until the new one is first used, and
// then presenting again repairs the loss.
//
// # Failures and answers
//
// A failure is stored for each step and response ([Failure]) and makes only that
// step wait: 30 seconds first (a minute where the configuration is wrong), doubled up
// to 15 minutes, or as long as the server asks, which is 15 minutes at most. A failure
// about app credentials ends as soon as the credentials are other ones. Publish is tried
// again within the run that brought the pair, until shortly before its deadline, and
// after that every 30 seconds.
//
// Three refusals in a row that are not OAuth, such as a firewall's page, are a
// configuration error with a wait of 30 minutes, doubled up to 6 hours. The token is
// still presented then, because nobody knows whether it is spent.
//
// [NeedsConsent] is not final. It is written when the server answers invalid_grant
// and no successor is found anywhere. The token is then presented again 15 minutes,
// 1 hour, 6 hours and 24 hours after the refusal, and whenever a person asks for it
// with [Rotator.Rotate], each time after a complete Recover: a refused token is
// either dead or works. After that Recover alone goes on, once a day.
//
// A consent that could not be checked in time waits in the ledger while the old
// pair is kept fresh. If its access token has expired by then, its refresh token is
// presented once, under a [ConsentAttempt] of its own, and the new access token is
// checked instead. If the server refuses that refresh token, it is tried again after
// the same four waits before the consent is rejected.
//
// A quarantined response is judged again after the quiet period and then once a
// day, because a newer program may be able to read it.
//
// # More than one run
//
// Every write of a record compares its revision. After a refused write the run
// loads and plans again. So any number of runs may work on one connection: one of
// them begins, and the others find its attempt.
//
// A run takes the most overdue connections first and stops in time to save what it
// is about to get. It hands the rest on with a follow-up: a request for another
// sweep, which lists again what is due. A request for a sweep is claimed for its
// window of 30 seconds in [NoticeClaims], so that all processes together send one.
// One follow-up sweep works at a time, and begins connections for one minute, so
// that requests about single connections do not wait behind a backlog. A follow-up
// that comes meanwhile leaves its work to the next window. Follow-ups may come twice,
// late or never. A lost one costs time only: [Record.DueAt] stands, and the scheduled
// sweep comes for it. Where that would be too late, as for a request in hops that
// cannot be passed on, the error is [ErrNotHandedOn] and the queue delivers again.
//
// All runs share one [RateLimiter] for each environment. A reservation that lies
// further ahead than a minute plus what the run's own backlog explains was made by a
// wrong clock, and is ignored: the process keeps to its own rate and logs a warning.
// A rate limit, a login host that is down, or refused app credentials stop the
// connections of one environment only.
//
// # Clocks
//
// A token expires for readers expires_in after the answer's created_at, or after the
// time of saving where created_at is more than a minute before that. Due times count
// from the earlier of the two, because nobody knows which clock is right. If they
// differ by more than a minute, a clock notice goes out once a day.
//
// The clocks of two runs are compared only with a lease in between: a holder presents
// only if its POST must end before its lease does. So clocks may differ by as much
// as the quiet period. If they differ by more, a run takes another's live attempt for
// an ended one and presents beside it. The answer that is saved still wins, unless the
// server ends the whole grant on reuse.
//
// # Service accounts
//
// A connection may be the app itself, with access tokens for the app's own
// credentials (RFC 6749 section 4.4). It takes the same steps under the same lease,
// and its lineage is the access token's fingerprint. Asking again loses nothing, so
// no result is unknown: whatever fails ends the attempt and is tried again after a
// wait, and there is no Recover, no escrow and no consent.
//
// # Notices
//
// People are notified of each event once, not once a sweep. A quarantine, a rejection
// or a repaired secret is announced before it is written, because afterwards no run
// would see it as new: a crash in between costs a second notice, not the only one.
// A recovered notice comes after its write. A connection that needs a consent is
// marked in the ledger, and each sweep sends the notice until it was delivered. Three or
// more of one environment within a run or an hour are one notice. What concerns a whole
// environment (refused credentials, a new token lifetime, clocks that differ) is
// claimed in [NoticeClaims] for a day once it was delivered.
//
// # Windows nobody can close
//
// W1: the server committed and its answer never arrived. W2: the answer is in
// memory and neither store has acknowledged it. W3: both stores stay unreachable
// until the process must end. W4: between the POST and Publish, readers hold an
// access token that may be dead already; they read again on a 401.
//
// # What nobody can revoke
//
// Ending a pair at the issuer takes one of its tokens. The following pairs live on
// at the server until they expire or their user withdraws the consent.
//
//   - One that never arrived whole (W1 to W3).
//   - One in a saved answer that nobody can open any more. Its history row says that
//     it was not revoked.
//   - One in an answer with several different refresh tokens that was given up, by a
//     discard or a new consent: nobody knows which token is real. Its history row says
//     that there was nothing to revoke.
//   - On a server that lets a predecessor live until its successor's access token is
//     first used: a predecessor with a successor that nobody ever used. It is not
//     revoked, because some servers end the whole grant when a predecessor is revoked.
//   - One with an expired access token, on a server that then does nothing and answers
//     with success.
package rotation
