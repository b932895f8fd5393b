package tokensource

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"golang.org/x/oauth2"

	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	defaultPrefix = "tokenturn"
	defaultTTL    = time.Minute
	// margin is how long before a token's expiry the source reads again, at most a
	// quarter of the token's life. It covers the travel time of a request and
	// differing clocks.
	margin = 30 * time.Second
	// Two reads are at least minInterval apart. After publishWindow, the interval doubles
	// with each read that brought nothing, up to maxInterval.
	minInterval = time.Second
	maxInterval = 10 * time.Second
	// patience is how long one request that was refused with 401 waits for a newer token.
	// publishWindow is how long after the first such request any request waits: publishing
	// follows the redeem within a fraction of a second, or within some seconds if the
	// token endpoint is slow or calls to AWS must be repeated. If the API refuses requests
	// for longer, it has another reason than the token's age.
	patience      = 5 * time.Second
	publishWindow = 15 * time.Second
	// readTimeout bounds one read, with the retries of the SDK.
	readTimeout = 5 * time.Second
	// cacheTimeout bounds a read of a cache on the same machine, within readTimeout.
	cacheTimeout = 2 * time.Second
)

// SecretReader is the one method of *secretsmanager.Client that a source needs.
type SecretReader interface {
	GetSecretValue(ctx context.Context, in *secretsmanager.GetSecretValueInput,
		optFns ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error)
}

// Option changes a default of New.
type Option func(*settings)

type settings struct {
	prefix string
	ttl    time.Duration
	cache  SecretReader
	renew  Renewer
	min    time.Duration
}

// WithPrefix sets the first part of secret names, "tokenturn" by default: the
// installation's TOKENTURN_SECRET_PREFIX.
func WithPrefix(prefix string) Option { return func(s *settings) { s.prefix = prefix } }

// WithTTL sets how long a token is used before the secret is read again. The package
// documentation says what a longer time costs.
func WithTTL(ttl time.Duration) Option { return func(s *settings) { s.ttl = ttl } }

// WithCache reads through a cache of secrets, such as Extension, whenever a slightly old
// value is sufficient. The source uses the client given to New instead after the API has
// refused the current token, when the token is about to expire, and when the cache has
// no valid one.
func WithCache(cache SecretReader) Option { return func(s *settings) { s.cache = cache } }

// Source is the token of one connection. It implements oauth2.TokenSource and is safe for
// concurrent use.
//
// Use Client or Transport for requests. With wrappers that keep a token until it
// expires, such as oauth2.ReuseTokenSource and oauth2.NewClient, this source does not
// learn that a token was refused.
type Source struct {
	connection token.Connection
	read       func(ctx context.Context, fresh bool) (token.Document, error) // not fresh: a cache may answer
	ttl        time.Duration
	patience   time.Duration
	ensure     ensurer

	cached atomic.Pointer[cached] // the newest document; written under mu

	mu         sync.Mutex
	flight     chan struct{} // closed when the present read ends; nil: there is none
	notBefore  time.Time     // of the next read
	misses     int           // reads in a row that brought nothing
	failure    error         // of the last read
	rejectedAt time.Time     // when the API first refused the cached document's token; zero: it did not
}

var _ oauth2.TokenSource = (*Source)(nil)

// New makes a source for a connection such as "production/acme". It reads nothing yet.
func New(client SecretReader, connection string, options ...Option) (*Source, error) {
	c, err := token.ParseConnection(connection)
	if err != nil {
		return nil, err
	}
	set := settings{prefix: defaultPrefix, ttl: defaultTTL}
	for _, option := range options {
		option(&set)
	}
	switch {
	case client == nil:
		return nil, fmt.Errorf("the token source of %s has no client", c)
	case set.ttl < minInterval:
		return nil, fmt.Errorf("the TTL %v of the token source of %s is shorter than %v", set.ttl, c, minInterval)
	}
	name := strings.TrimSuffix(set.prefix, "/") + "/connection/" + c.String()
	read := func(ctx context.Context, fresh bool) (token.Document, error) {
		if set.cache != nil && !fresh {
			ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
			defer cancel()
			if d, err := readSecret(ctx, set.cache, name, c); err == nil && d.ExpiresAt.After(time.Now()) {
				return d, nil
			}
		}
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		return readSecret(ctx, client, name, c)
	}
	return &Source{connection: c, ttl: set.ttl, patience: patience, read: read, ensure: ensurer{renew: set.renew,
		min: set.min}}, nil
}

// Static is a source for tests that always has the given document. It uses the
// document's AccessToken, CompanyID and APIURL, and ExpiresAt if it is set.
func Static(document token.Document) *Source {
	s := &Source{connection: document.Connection, ttl: defaultTTL,
		read: func(context.Context, bool) (token.Document, error) { return document, nil }}
	s.settle(finding{document: document})
	return s
}

// readSecret asks for AWSCURRENT by name, because a policy can be limited to that label.
func readSecret(ctx context.Context, client SecretReader, name string, c token.Connection) (token.Document, error) {
	out, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name,
		VersionStage: new("AWSCURRENT")})
	switch {
	case err != nil:
		return token.Document{}, classify(err, name)
	case out.SecretString == nil:
		return token.Document{}, fmt.Errorf("%w: secret %s has no text value", ErrUnusable, name)
	}
	document, err := token.ParseDocument(token.NewSecret(*out.SecretString))
	switch {
	case err != nil:
		return token.Document{}, fmt.Errorf("%w: secret %s: %w", ErrUnusable, name, err)
	case document.Connection != c:
		return token.Document{}, fmt.Errorf("%w: secret %s has a token of %s", ErrUnusable, name, document.Connection)
	}
	document.SealedAnswer = nil // not needed here
	if !document.HasExpiry() {
		document.ExpiresAt = time.Time{} // the token is used until the API refuses it
	}
	return document, nil
}

// Token implements oauth2.TokenSource. All callers get the same token until there is a newer one.
func (s *Source) Token() (*oauth2.Token, error) {
	h, err := s.find(context.Background())
	if err != nil {
		return nil, err
	}
	return h.token, nil
}

// Document returns the content of the secret without its sealed part: the token, the
// API's base URL, the company. It waits for a read only if there is no valid token, or
// if it is the call that started the read. That takes some seconds at most, or as long
// as a rotation if WithEnsure asks for one because there is no valid token.
func (s *Source) Document(ctx context.Context) (token.Document, error) {
	h, err := s.find(ctx)
	if err != nil {
		return token.Document{}, err
	}
	return h.document, nil
}

// find takes no lock and allocates nothing while no read is due: programs call it for every request.
func (s *Source) find(ctx context.Context) (*cached, error) {
	if h := s.cached.Load(); h != nil && time.Now().Before(h.checkAt) {
		return h, nil
	}
	s.mu.Lock()
	mine, living := s.startRead(ctx), alive(s.cached.Load(), time.Now())
	flight := s.flight
	s.mu.Unlock()
	patient, cancel := ctx, context.CancelFunc(func() {})
	switch {
	case living && !mine:
		flight = nil // another call reads; this one need not wait
	case living:
		patient, cancel = context.WithTimeout(ctx, readTimeout)
	}
	defer cancel()
	if wait(patient, flight) != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("waiting for the token of %s: %w", s.connection, ctx.Err())
	}
	return s.answer()
}

// answer returns the cached token, or the error that says why there is none.
func (s *Source) answer() (*cached, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.cached.Load()
	switch {
	case alive(h, time.Now()):
		return h, nil
	case h == nil:
		return nil, fmt.Errorf("reading the token of %s: %w", s.connection, s.failure)
	}
	err := fmt.Errorf("%w: the token of %s expired at %s by this machine's clock; check whether the rotation runs and "+
		"whether the connection needs a consent, with: tokenturn connection show %s", ErrExpired, s.connection,
		h.document.ExpiresAt.Format(time.RFC3339), s.connection)
	if s.failure != nil {
		err = fmt.Errorf("%w; the last attempt to read a newer one: %w", err, s.failure)
	}
	return nil, err
}

// finding is the result of a read: the secret's document or why there is none, and the
// rotate function's answer if it was asked.
type finding struct {
	document token.Document
	err      error
	asked    bool
	refusal  error
}

// startRead starts a read of the secret unless one is under way or it is too early for
// one. The caller holds mu.
func (s *Source) startRead(ctx context.Context) bool {
	now := time.Now()
	if s.flight != nil || now.Before(s.notBefore) {
		return false
	}
	done := make(chan struct{})
	s.flight = done
	h := s.cached.Load()
	fresh := h != nil && (!s.rejectedAt.IsZero() || !h.document.ExpiresAt.IsZero() && !now.Before(s.soon(h.document)))
	ask := s.ensure.may(now)
	// Other calls may wait for this read, so it must not end with the call that started it.
	ctx = context.WithoutCancel(ctx)
	go func() {
		f := s.readOrRenew(ctx, fresh, ask)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settle(f)
		s.flight = nil
		close(done)
	}()
	return true
}

// readOrRenew reads the secret. If its token has too little life left, it asks the rotate
// function for a better one and reads again.
func (s *Source) readOrRenew(ctx context.Context, fresh, ask bool) finding {
	document, err := s.read(ctx, fresh)
	f := finding{document: document, err: err}
	if !ask || !s.ensure.wants(document, err) {
		return f
	}
	f.asked = true
	if f.refusal = s.ensure.ask(ctx, s.connection, document); f.refusal != nil {
		return f
	}
	if document, err = s.read(ctx, true); err == nil || f.err != nil { // otherwise the first document is better than none
		f.document, f.err = document, err
	}
	return f
}

// settle records the result of a read. The caller holds mu.
func (s *Source) settle(f finding) {
	now := time.Now()
	h := s.cached.Load()
	progress := f.err == nil && (h == nil || newer(f.document, h.document))
	if progress {
		s.rejectedAt = time.Time{}
	}
	if f.err == nil && supersedes(f.document, h, now) {
		h = newCached(f.document, time.Time{})
	}
	s.failure = s.ensure.settle(f, progress, now)
	if s.failure == nil && s.rejectedAt.IsZero() && alive(h, now) {
		s.misses = 0
		s.notBefore = now.Add(minInterval)
		s.cached.Store(newCached(h.document, s.nextCheck(h.document, now)))
		return
	}
	s.notBefore = now.Add(min(minInterval<<s.misses, maxInterval))
	if s.rejectedAt.IsZero() || !now.Before(s.rejectedAt.Add(publishWindow)) {
		s.misses = min(s.misses+1, 10)
	}
	if h != nil {
		s.cached.Store(newCached(h.document, earlier(s.notBefore.Round(0), h.document.ExpiresAt)))
	}
}

// nextCheck returns the time of the next read if nothing is wrong.
func (s *Source) nextCheck(d token.Document, now time.Time) time.Time {
	ttl := s.ttl - rand.N(s.ttl/5+1)
	if d.ExpiresAt.IsZero() {
		return now.Add(ttl).Round(0)
	}
	next := now.Add(minInterval).Round(0)
	check := earlier(now.Add(ttl).Round(0), s.soon(d))
	if check.Before(next) {
		check = next
	}
	return earlier(check, d.ExpiresAt)
}

// soon returns the time from which the token of d, which expires, counts as about to
// expire.
func (s *Source) soon(d token.Document) time.Time {
	early := min(margin, lifetime(d)/4)
	return d.ExpiresAt.Add(-max(early, s.ensure.least(d)))
}

func lifetime(d token.Document) time.Duration { return max(0, d.ExpiresAt.Sub(d.CreatedAt)) }

// awaitNewer is called when the API refused the token of d. It reads the secret for a
// newer one. Within publishWindow it reads repeatedly, for the patience of a request, so
// that it finds a token that is about to be published; after that, once, if a read is
// due.
func (s *Source) awaitNewer(ctx context.Context, d token.Document) (token.Document, bool) {
	until := s.reject(d)
	for {
		s.mu.Lock()
		if h := s.cached.Load(); newer(h.document, d) {
			s.mu.Unlock()
			return h.document, alive(h, time.Now())
		}
		s.startRead(ctx)
		flight, next := s.flight, s.notBefore
		s.mu.Unlock()
		if flight == nil {
			if next.After(until) {
				return token.Document{}, false
			}
			timed, cancel := context.WithDeadline(ctx, next)
			<-timed.Done()
			cancel()
		}
		timed, cancel := context.WithTimeout(ctx, readTimeout) // enough for a read without a rotation
		err := wait(timed, flight)
		cancel()
		if err != nil {
			return token.Document{}, false
		}
	}
}

// reject records that the API refused the token of d, so that it is no longer used
// without a read. It returns the time until which the request may wait for a newer one.
func (s *Source) reject(d token.Document) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.cached.Load(); s.rejectedAt.IsZero() && !newer(h.document, d) {
		s.rejectedAt = time.Now()
		s.cached.Store(newCached(h.document, time.Time{}))
	}
	return earlier(time.Now().Add(s.patience), s.rejectedAt.Add(publishWindow))
}

// wait waits for a read to end. A nil channel means that it has ended.
func wait(ctx context.Context, flight <-chan struct{}) error {
	if flight == nil {
		return ctx.Err()
	}
	select {
	case <-flight:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
