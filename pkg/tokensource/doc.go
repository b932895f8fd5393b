// Package tokensource gives programs the access token that tokenturn keeps
// fresh in AWS Secrets Manager.
//
//	source, err := tokensource.New(secretsmanager.NewFromConfig(cfg), "production/acme")
//	...
//	response, err := source.Client(ctx).Get("https://api.procore.com/rest/v1.0/me")
//
// Make one Source per connection when the program starts, and share it. It reads the
// secret when it is used, never in the background, so an idle program costs nothing
// and a Lambda function may be frozen between two events.
//
// # When it reads
//
// A source uses a token from memory for the TTL, which is one minute unless WithTTL
// changes it, minus a random part of up to a fifth. Then it reads the secret again. A
// rotation may invalidate the old token as soon as the new one exists, long before the
// old one expires. A cache that lasts until the expiry would serve an invalid token for
// the rest of that time. Client repeats a request with an invalid token after a new
// read, so the TTL only decides how many requests get a 401: those in at most one
// minute after a rotation, until the first of them returns. Some requests cannot be
// repeated, because their body is a stream, and every 401 counts in Procore's grading
// of an app. A minute keeps both rare. It costs at most 55,000 reads a month in a
// program that is always active, about $0.27 at $0.05 for 10,000; five minutes would
// cost a fifth of that.
//
// For any number of goroutines, and any answers of the API, a source makes one read at
// a time and at most one a second.
//
// # Behind other caches
//
// A cache between this package and Secrets Manager adds its own time to live to the
// time for which an invalid token is served, and it must not answer the read that
// follows a 401. WithCache ensures the second: give New the SDK's client, and WithCache
// an implementation of SecretReader on a cache, such as Extension for the AWS Parameters
// and Secrets Lambda Extension. The cache's time to live should also be a minute. The
// extension has five minutes unless SECRETS_MANAGER_TTL is set; the caching libraries
// of AWS have an hour, which is most of a token's life. Because a source reads at most
// once a minute, a cache is useful only if several sources share it.
//
// # Tokens that live shorter than the schedule's interval
//
// The rotate function keeps every connection fresh without being asked. WithEnsure is
// for programs that need a token with a minimum remaining life, whatever the schedule: a
// source that finds less asks the function and reads again.
//
// # When reading fails
//
// The source serves the last valid token until it expires. Then errors say why; see
// ErrNotFound and the others. No error contains a token.
//
// # Testing programs
//
// Static is a source with a token that never changes. Package tokensourcetest has a
// secret that rotates on command, and an API that accepts only its current token; see
// the examples.
//
// This package can read a token, but has no code that spends a refresh token.
package tokensource
