// Package consent lets a person connect an account: an invitation, one
// authorization request (RFC 6749 section 4.1, with PKCE of RFC 7636), one callback,
// and pages that say in plain words what happened. It is the only part that
// strangers can reach.
//
//	GET  /connect/{invitation}    a page with one button; changes nothing
//	POST /connect/{invitation}    stores a state, sets a cookie, 303 to the authorization server
//	GET  /callback/{environment}  checks, prepares, consumes the state, exchanges the code, 303 to
//	GET  /connected, /not-connected
//	GET  /logo/{environment}      the logo that the operator gave for the app
//
// The order within the callback decides what a crash or a second request can do:
//
//	malformed in any way        refused; no store was asked
//	state read, browser checked refused without a change: the state stays for the right browser
//	prepared                    all early failures are over, a revoked invitation included; a reload starts here again
//	state consumed              the one conditional write; a request that loses it waits for the winner's result
//	code exchanged              the pair is saved by package rotation, whatever happens to this request
//	result recorded             repeats show it; without it they say that the attempt did not finish
//	result page                 a cookie of the same browser leads /connected to the state; others see no result
//
// Links, states and cookies carry 260 random bits and only their SHA-256 is
// stored. The PKCE verifier is computed from cookie and state, so neither the
// store nor the address bar is enough to redeem a code.
package consent
