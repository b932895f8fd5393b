// Package procore speaks to Procore's authorization server and API: it builds
// the address a person consents at, redeems codes and refresh tokens with
// exactly one request each, judges what came back, and asks whose a token is.
// Issuer implements rotation.Issuer.
//
// # What is known, and where from
//
// Procore documents its side at https://developers.procore.com/documentation
// (pages OAuth Endpoints, Authorization Code Grant Flow, Development
// Environments, Rate Limiting, Troubleshooting, FAQ). In short:
//
//   - There is one login host and one API host per environment; tokens of one
//     environment are worth nothing in another. Environments lists them.
//   - The client id and secret travel in the body of the request, JSON or form.
//     HTTP Basic is undocumented, and both ways at once are refused by some
//     servers, so only the body is used.
//   - A refresh token is spent by its use. The FAQ says that any refresh call,
//     "successful or not", ends the token, and that a lost response means a new
//     consent. Hence one POST, and no retry at any layer.
//   - Access tokens live for expires_in seconds: 5400 today, 7200 once, 900
//     announced. Nothing here assumes a value.
//   - No scope is in use, and sending one has been seen to fail. None is sent.
//   - PKCE is not documented. A challenge is sent all the same: a server that
//     does not know it ignores it (RFC 6749 section 3.1), one that does gains by it.
//   - The redirect URI must match a registered one exactly. "Out of band" shows
//     the code to the person instead.
//
// What Procore does not document follows from its answers, which have the shape
// of Doorkeeper's (https://github.com/doorkeeper-gem/doorkeeper). It is an
// inference that Procore's server is one:
//
//   - Errors are {"error","error_description"} (RFC 6749 section 5.2). Doorkeeper
//     up to 5.0 answers all of them with 401, later ones with 400 or 401 by kind,
//     so the code decides and the status does not.
//   - token_type is "bearer" or "Bearer"; token info says scopes and
//     expires_in_seconds in old releases, scope and expires_in in newer ones.
//   - On a server with Doorkeeper's previous_refresh_token column the old pair
//     lives until the new access token is first used, token info included. A new
//     pair must therefore be saved before anything here is called with it.
//   - Revoking an unknown token answers 200. Up to 5.8.0 so does revoking one
//     whose access token has expired, which then revokes nothing.
//
// # What is in between
//
// Firewalls, gateways and content delivery networks answer too, and change
// answers. Proxy variables of the environment are ignored. An answer may be
// compressed although that was not asked for, or in UTF-16; see Parse. A refusal
// counts for what the server's own error says; a page, a redirect or another
// text says nothing about a token, a user or a company. Waits that are asked for
// are obeyed for 15 minutes at most.
//
// # What no answer reveals
//
// No error, detail or reason of this package contains a token, a code, a client
// secret or text of a response body; only HTTP statuses, the error codes that
// the OAuth RFCs define, and what went wrong with the connection.
package procore
