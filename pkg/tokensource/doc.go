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
// cost a fifth of that. Other caches between this package and Secrets Manager
// must keep a value no longer either: their usual half hour or hour is most of a
// token's life.
//
// However many goroutines ask, and whatever the API answers, a source makes at
// most one read at a time and one a second.
//
// # When reading fails
//
// The last good token is served until it expires; then errors say why, see
// ErrNotFound and the others. No error contains a token.
//
// This package can read a token and has no means to spend a refresh token.
package tokensource
