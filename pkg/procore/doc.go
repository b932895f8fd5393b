// Package procore speaks to Procore's authorization server and API: it builds
// the address at which a person consents, redeems codes and refresh tokens with
// exactly one request each, judges the answers, and asks which app and user a
// token belongs to. Issuer implements rotation.Issuer.
//
// # What is known, and from which source
//
// Procore documents its side at https://developers.procore.com/documentation
// (pages OAuth Endpoints, Authorization Code Grant Flow, Development
// Environments, Rate Limiting, Troubleshooting, FAQ). In short:
//
//   - There is one login host and one API host per environment; tokens of one
//     environment do not work in another. Environments lists them.
//   - The client id and secret travel in the body of the request, JSON or form.
//     HTTP Basic is undocumented, and both ways at once are refused by some
//     servers, so only the body is used.
//   - Using a refresh token spends it. The FAQ says that any refresh call,
//     "successful or not", ends the token, and that a lost response means a new
//     consent. Hence one POST, and no retry at any layer.
//   - Access tokens live for expires_in seconds: 5400 today, 7200 once, 900
//     announced. Nothing here assumes a value.
//   - No scope is in use, and sending one has been seen to fail. None is sent.
//   - PKCE is not documented. A challenge is still sent: a server without PKCE
//     ignores it (RFC 6749 section 3.1), and on one with PKCE it protects the code.
//   - The redirect URI must match a registered one exactly. "Out of band" shows
//     the code to the person instead.
//
// What Procore does not document follows from its answers, which have the shape
// of Doorkeeper's (https://github.com/doorkeeper-gem/doorkeeper). That Procore's
// server is a Doorkeeper is an inference:
//
//   - Errors are {"error","error_description"} (RFC 6749 section 5.2). Doorkeeper
//     up to 5.0 answers all of them with 401, later ones with 400 or 401 by kind,
//     so the error code decides, not the status.
//   - token_type is "bearer" or "Bearer"; token info has scopes and
//     expires_in_seconds in old releases, scope and expires_in in newer ones.
//   - On a server with Doorkeeper's previous_refresh_token column the old pair
//     lives until the new access token is first used, token info included. A new
//     pair must therefore be saved before anything here is called with it.
//   - Revoking an unknown token answers 200. Up to 5.8.0 so does revoking a
//     pair with an expired access token, which then revokes nothing.
//
// # Custom environments
//
// A custom environment is any name other than Procore's four, with its own login
// and API URL. It serves servers that speak as Procore's Doorkeeper does, such as
// a Procore stand-in or a test server. tokenturn does not support other providers.
// The server must
//
//   - take POST /oauth/token with the client credentials in a JSON body, and answer
//     in JSON with access_token, refresh_token, token_type and expires_in;
//   - answer GET /oauth/token/info in JSON with application.uid, the client id;
//   - answer GET /rest/v1.0/me at the API URL.
//
// A server that wants the credentials elsewhere, such as in HTTP Basic, refuses
// them: usually the result is config_error, and nothing is spent. Without
// application.uid, or without /rest/v1.0/me, a consent is saved but cannot be
// checked: tokenturn tries again with back-off and publishes nothing of it.
//
// # Between tokenturn and the server
//
// Firewalls, gateways and content delivery networks also send answers, and change
// answers. Proxy variables of the environment are ignored; Config.Proxy, if set, tunnels
// requests to https:// URLs and cannot read them. An answer may be
// compressed although that was not requested, or in UTF-16; see Parse. Only the
// server's own error code is a refusal; a page, a redirect or another text says
// nothing about a token, a user or a company. A wait that the server requests is
// obeyed for at most 15 minutes.
//
// # What no answer reveals
//
// No error, detail or reason of this package contains a token, a code, a client
// secret or text of a response body; only HTTP statuses, the error codes that
// the OAuth RFCs define, and what went wrong with the connection.
package procore
