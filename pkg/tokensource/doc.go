// Package tokensource gives programs the access token that tokenturn keeps
// fresh in AWS Secrets Manager.
//
//	source, err := tokensource.New(secretsmanager.NewFromConfig(cfg), "production/acme")
//	...
//	response, err := source.Client(ctx).Get("https://api.procore.com/rest/v1.0/me")
//
// Make one Source per connection, when the program starts, and share it. It
// reads the secret when it is used, never in the background, so an idle program
// costs nothing and a Lambda function may be frozen between two events.
//
// # When it reads
//
// A token is used from memory for the TTL, one minute unless WithTTL says
// otherwise, spread by a fifth, and then looked for again. Rotation may kill the
// old token the moment it makes the new one, long before the old one's expiry,
// and a cache that lasts until then would serve a dead token for the rest of it.
// A request that meets a dead token is repeated by Client after a new look, so
// the TTL decides only how many requests meet one: those of at most a minute
// after a rotation, until the first of them returns. Some cannot be repeated,
// because their body is a stream, and every 401 counts in Procore's grading of
// an app. A minute keeps both rare and costs at most 55,000 reads a month in a
// program that never rests, about $0.27 at $0.05 for 10,000; five minutes would
// cost a fifth of that.
//
// However many goroutines ask, and whatever the API answers, a source looks once at
// a time and once a second at most.
//
// # Behind other caches
//
// A cache between this package and Secrets Manager adds its own time to live to
// the time for which a dead token is handed out, and it must not answer the read
// that follows a 401. WithCache sees to the second: give New the SDK's client, and
// WithCache whatever implements SecretReader on a cache, such as Extension for the
// AWS Parameters and Secrets Lambda Extension. Its time to live should be a minute as
// well. The extension has five minutes unless SECRETS_MANAGER_TTL is set; the
// caching libraries of AWS have an hour, which is most of a token's life. As a source
// reads once a minute at most, a cache is worth having only where several share it.
//
// # Tokens that live shorter than the schedule
//
// The rotate function keeps every connection fresh by itself. WithEnsure is for programs
// that want a token with so much life left, whatever the schedule: a source that
// finds less asks the function and reads again.
//
// # When reading fails
//
// The last good token is served until it expires; then errors say why, see
// ErrNotFound and the others. No error contains a token.
//
// # Tests of programs that use it
//
// Static is a source whose token never changes. Package tokensourcetest has a secret that
// rotates on command, and an API that accepts its current token alone; see the examples.
//
// This package can read a token and has no means to spend a refresh token.
package tokensource
