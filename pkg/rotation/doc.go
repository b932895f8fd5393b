// Package rotation keeps a connection's token pair fresh without ever
// presenting a refresh token twice by mistake and without losing a pair that
// any store could have kept.
//
// # The story
//
// A refresh token is a bullet. Presenting it ends it, whether or not the answer
// arrives, and the server invents the new pair, so nothing can be written
// ahead. Three rules follow.
//
//  1. Fence presenting, never saving. Only the holder of a live [Attempt] may
//     present a token; whoever receives an answer may always save it.
//  2. Save first, judge later, publish last. The raw answer is a durable,
//     sealed [TokenResponse] before it is parsed, decided upon or used.
//  3. One store decides. The [Ledger] names the successor by lineage, that is
//     by its parent's fingerprint; the [SecretStore] only shows what was decided.
//
// Every run handles a connection in one loop: load, plan, act, until there is
// nothing to do. plan is a pure function of the record, its responses and the time;
// the first [Step] that fits wins:
//
//	Decide   a saved response answers the current refresh token, or is a new consent: judge it, make it current
//	Publish  the secret store does not show the current pair: put its version, move AWSCURRENT, write that it is done
//	Hold     an answer to the current refresh token is quarantined: wait for a person
//	Wait     another attempt is live, or a failure asks for time
//	Look     an attempt ran out: search the secret store for what it may have brought
//	Redeem   due: preflight, begin an attempt, POST once, save
//	Revoke   a live response can no longer be decided: revoke it, then forget its bytes
//	Nothing  fresh, or waiting for a consent
//
// There is no recovery code. A run that finds another run's remains takes the
// same steps as the run that left them.
//
// # What a crash leaves
//
//	crash                               left behind                        what the next run does
//	before Begin's write                nothing                            Redeem
//	after it, before the POST           an attempt                         Wait, Look, after the quiet period Redeem
//	after the POST, before the answer   an attempt; perhaps spent (W1)     the same; invalid_grant then means a new consent
//	answer in memory, not saved (W2)    an attempt; spent                  the same
//	after Save                          a response                             Decide
//	answer saved in the secret store only      an escrow version                  Look copies it, Decide
//	after Decide's write                a current pair, not published      Publish
//	in Publish, before its write        perhaps a version, perhaps moved   Publish: same bytes, same id, no effect
//	after Publish's write               nothing                            -
//
// Presenting again after an unknown end is never worse than not to, once no
// successor is saved anywhere and the first request can no longer arrive: either
// the server never saw it, or it will say invalid_grant, or, on a server that
// lets the old token live until the new one's first use, it heals the loss.
//
// # Service accounts
//
// A connection may be the app itself, whose access tokens come for its own
// credentials (RFC 6749 section 4.4). It takes the same steps under the same
// lease, with the access token's fingerprint for its lineage. But asking again
// loses nothing, so no end is unknown: whatever fails ends its attempt and is
// tried again after a wait, an attempt that ran out counts for nothing, and
// there is neither Look nor escrow nor a consent to ask for.
//
// # What people are told
//
// Each event once, not each sweep. What is about one connection is told before
// it is written, because what is written is never told again. A loss is written
// as untold, and each sweep that sees it tells until the notice was delivered, so
// that a cause which many connections have in common is one notice. What is about
// an environment, refused credentials or a new lifetime, is claimed for a day in
// [Announcements] once it was delivered.
//
// # Concurrency
//
// Every write of a record compares its revision; a refused write means load and
// plan again. So any number of runs may work on one connection: one begins, the
// others find its attempt. Clocks are compared only with a lease in between: a
// holder presents only if its POST must end before the lease does.
//
// So clocks may differ by as much as the quiet period. Further off, a run takes
// another's live attempt for lost and presents beside it; the answer that is
// saved still wins, unless the server ends the family on reuse.
//
// # More than one run can do
//
// A run takes the most overdue first and stops in time to save what it is about
// to get. The rest it hands on: it asks for another sweep, which lists anew what
// is due. So a request may come twice, late or never; runs may overlap, and one
// that finds another's attempt goes on to the next connection. All of them take
// their turns to redeem from one [RateLimiter].
//
// # Windows nobody can close
//
// W1: the server committed and its answer never arrived. W2: the answer is in
// memory and neither store has acknowledged it. W3: both stores stay unreachable
// until the process must end. W4: between the POST and Publish, readers hold
// an access token that may be dead already; they read again on a 401.
//
// # What nobody can revoke
//
// Ending a pair at the issuer takes one of its tokens. So there are pairs that
// live on at the server until they expire or their user takes the consent back:
// one whose answer never arrived whole (W1 to W3), one whose saved answer nobody
// can open any more, and one whose answer names several different refresh tokens
// and was given up, be it by discard or by a new consent, for nobody knows which
// of them is real. The history row of such an answer says that nothing was
// revoked. Where a server does nothing about a pair whose access token has
// expired, and says that it did, the same holds for that one.
package rotation
