// Package rotation keeps the token pair of each connection fresh. It saves every
// new pair before anything else happens to it, and it never presents a refresh
// token again while a successor of it is saved.
//
// # The rules
//
// A refresh token works once. Presenting it invalidates it, whether or not the
// answer arrives. Only the server knows the new pair, so nothing can be written
// ahead. Three rules follow.
//
//  1. Fence presenting, never saving. Only the holder of a live [Attempt] may
//     present a token. Anyone who receives an answer may always save it.
//  2. Save first, judge later, publish last. The raw answer is saved and sealed as
//     a [TokenResponse] before it is parsed, decided or used.
//  3. One store decides. The [Ledger] names the successor by lineage, that is, by
//     the fingerprint of its parent. The [SecretStore] only shows what was decided.
//
// The successor rule follows from these: while a response is [Saved] or
// [Quarantined] and has the current refresh token as its parent, that token is not
// presented.
//
// # Steps
//
// A run reconciles a connection in one loop: load, plan, act, until nothing is left
// to do. plan is a pure function of the record, its responses, the time, the
// request, and what this run has already done. It makes a list of moves. Each move
// is a [Step] with the time from which it may be taken. plan picks the first move
// that is due. [Record.DueAt] is the earliest time in the same list, so every state
// that needs a step has a time at which a run comes for it.
//
//	step        applies when                                             what it does
//	Decide      a saved response is a new consent or answers the         check it; make it current, quarantine it or
//	            current refresh token; each on its own, the higher       reject it
//	            epoch first, then the earliest
//	Publish     the secret store does not show the current pair          put the version, move AWSCURRENT, write that
//	                                                                     it is done
//	Quarantine  a response to the current refresh token is quarantined   wait for a person
//	Wait        another attempt is live, or the quiet period or the      nothing
//	            back-off after a failure is not over
//	Recover     an attempt ended without a known result, or the issuer   search the secret store for a successor and
//	            refused the token                                        copy it to the ledger
//	Redeem      the current pair is due, or a refused token is due to    preflight, begin an attempt, POST once, save
//	            be tried again
//	Revoke      a live response can no longer be decided, or the time    revoke it, then delete its bytes; search for
//	            to search for late answers has come                      late answers
//	Nothing     otherwise                                                report the status of the connection
//
// Only one of Publish, Quarantine, Wait, Recover and Redeem applies at a time. A
// consent that waits to be decided does not delay them.
//
// Recovery takes the same steps as normal operation. A run that finds the state that
// another run left does what that run would have done next.
//
//	crash                               left behind                        what the next run does
//	before Begin's write                nothing                            Redeem
//	after it, before the POST           an attempt                         Wait, Recover; after the quiet period Redeem
//	after the POST, before the answer   an attempt; token maybe spent (W1) the same; the server may refuse the token
//	answer in memory, not saved (W2)    an attempt; token spent            the same
//	after Save                          a response                         Decide
//	answer saved in the secret store    an escrow version                  Recover copies it to the ledger, Decide
//	after Decide's write                a current pair, not published      Publish
//	in Publish, before its write        maybe a version, maybe AWSCURRENT  Publish: same bytes, same id, no effect
//	                                    already moved
//	after Publish's write               nothing                            nothing
//
// After an unknown result, presenting the token again can only help, provided that
// no successor is saved anywhere and the first request can no longer arrive. Either
// the server never saw the first request and the token works. Or the server refuses
// the token, which was lost anyway. Or the server keeps the old token alive until the
// new one is first used, and then presenting it again repairs the loss.
//
// # Failures and answers
//
// A failure is stored for each step and response ([Failure]) and delays only that
// step. The back-off starts at 30 seconds (one minute for a configuration error) and
// doubles up to 15 minutes. If the server asks for a wait, that wait counts instead,
// 15 minutes at most. A failure about app credentials ends as soon as the credentials
// change. The run that obtained a pair retries Publish until shortly before its
// deadline. After that, runs retry it every 30 seconds.
//
// Three refusals in a row that are not OAuth errors, such as a firewall's page, are a
// configuration error. Its back-off starts at 30 minutes and doubles up to 6 hours. The
// token is still presented after each wait, because nobody knows whether it is spent.
//
// [NeedsConsent] is not final. It is written when the server answers invalid_grant
// and no successor is found anywhere. The token is presented again 15 minutes, 1 hour,
// 6 hours and 24 hours after the refusal, and whenever a person asks for it with
// [Rotator.Rotate]. Each time, a complete Recover comes first: a refused token is
// either dead or works. After the last try, only Recover continues, once a day.
//
// A consent that could not be checked in time waits in the ledger while the old
// pair is kept fresh. If its access token has expired by then, its refresh token is
// presented under a [ConsentAttempt] of its own, and the new access token is checked
// instead. If the server refuses that refresh token, the consent is rejected.
//
// A quarantined response is judged again after the quiet period and then once a
// day, because a newer program may be able to read it.
//
// # More than one run
//
// Every write of a record compares its revision. After a refused write, the run
// loads and plans again. So any number of runs may work on one connection: one of
// them begins an attempt, and the others find it.
//
// A run takes the most overdue connections first and stops early enough to save every
// answer it asks for. It leaves the other connections to a follow-up: a request for
// another sweep, which lists again what is due. A request for a sweep is claimed for
// its window of 30 seconds in [NoticeClaims], so that all processes together send one.
// Only one follow-up sweep works at a time. It begins connections for one minute, so
// that requests about single connections do not wait behind a backlog. A second
// follow-up that arrives meanwhile leaves its work to the next window. Follow-ups may
// arrive twice, late or never. A lost one costs only time: [Record.DueAt] stays, and the
// scheduled sweep comes for it. Some follow-ups cannot wait for that, such as a request
// in hops that cannot be passed on. Then the error is [ErrNotHandedOn], and the queue
// delivers the request again.
//
// All runs share one [RateLimiter] for each environment. A reservation is ignored if it
// lies further ahead than one minute plus what the run's own backlog explains, because a
// wrong clock made it. The process then keeps to its own rate and logs a warning. A rate
// limit, a login host that is down, or refused app credentials stop the connections of
// one environment only.
//
// # Clocks
//
// For readers, a token expires expires_in after the answer's created_at. If created_at
// is more than a minute before the time of saving, the time of saving counts instead. Due
// times count from the earlier of the two, because nobody knows which clock is right. If
// the two differ by more than a minute, a clock notice is sent once a day.
//
// A process with a clock that is hours ahead may fail, or end. So the due time of an
// active connection is at most one cadence and 15 minutes after the time at which the pair
// had to be replaced, or after its former due time. The run that comes then notes when it
// saw the attempt ([Attempt.Seen]), and the attempt ends a lease after that.
//
// The clocks of two runs are compared only with a lease in between: a holder presents
// only if its POST must end before its lease does. So clocks may differ by as much
// as the quiet period. If they differ by more, a run may take another run's live attempt
// for one that has ended, and present the token at the same time. The answer that is
// saved still wins, unless the server ends the whole grant when a token is used again.
//
// # Service accounts
//
// A connection may be the app itself, with access tokens for the app's own
// credentials (RFC 6749 section 4.4). It takes the same steps under the same lease.
// Its lineage is the fingerprint of the access token. Asking again loses nothing, so
// no result is unknown: every failure ends the attempt, and the request is repeated
// after a back-off. There is no Recover, no escrow and no consent.
//
// # Notices
//
// People are notified of each event once, not once a sweep. The notice of a
// quarantine, a rejection, a recovery or a repaired secret is sent before the write,
// because no later run would see it as new. A crash in between costs a second notice, not the only one. A
// connection that needs a consent is marked in the ledger, and each sweep sends its
// notice until one is delivered. Three or more such connections of one environment within
// a run or an hour are one notice. An event that concerns a whole environment (refused
// credentials, a new token lifetime, clocks that differ) is claimed in [NoticeClaims] for
// a day once its notice is delivered.
//
// # Windows nobody can close
//
// W1: the server committed, and its answer never arrived. W2: the answer is in
// memory, and neither store has acknowledged it. W3: both stores stay unreachable
// until the process must end. W4: between the POST and Publish, readers hold an
// access token that may be dead already; they read again on a 401.
//
// # What nobody can revoke
//
// Revoking a pair at the issuer takes one of its tokens. The following pairs stay valid
// at the server until they expire or their user withdraws the consent.
//
//   - A pair that never arrived whole (W1 to W3).
//   - A pair in a saved answer that nobody can open any more. Its history row says that
//     it was not revoked.
//   - A pair of another client id than the app credentials have, if the server refuses to
//     revoke it for a day. A notice and its history row say so.
//   - A pair in an answer with several different refresh tokens that was given up, by a
//     discard or a new consent: nobody knows which token is real. Its history row says
//     that there was nothing to revoke.
//   - On a server that keeps a predecessor alive until its successor's access token is
//     first used: a predecessor with a successor that was never used. It is not
//     revoked, because some servers end the whole grant when a predecessor is revoked.
//   - A pair with an expired access token, on a server that then does nothing and answers
//     with success.
package rotation
