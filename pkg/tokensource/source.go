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
	// margin before a token's expiry in which a newer one is looked for, at
	// most a quarter of the token's life. It covers a request's time on its
	// way and clocks that disagree.
	margin = 30 * time.Second
	// A read follows the one before no sooner than minPace, and after reads that
	// brought nothing, once hope is over, twice as late each time up to maxPace.
	minPace = time.Second
	maxPace = 10 * time.Second
	// patience is how long one request that was refused with 401 waits for a newer
	// token, and hope how long after the first such request any does: publishing
	// follows the redeem within a fraction of a second, or some seconds where the token
	// endpoint is slow or calls of AWS have to be repeated. A token that is refused
	// for longer is not what the API objects to.
	patience = 5 * time.Second
	hope     = 15 * time.Second
	// readTimeout is for one read, with the retries of the SDK.
	readTimeout = 5 * time.Second
	// cacheTimeout is for a read of a cache on the same machine, within readTimeout.
	cacheTimeout = 2 * time.Second
)

// SecretReader is the one method of *secretsmanager.Client that is needed.
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

// WithPrefix sets the first part of secret names, "tokenturn" unless set: the
// installation's TOKENTURN_SECRET_PREFIX.
func WithPrefix(prefix string) Option { return func(s *settings) { s.prefix = prefix } }

// WithTTL sets how long a token is used before it is looked for again. The
// package documentation says what a longer time costs.
func WithTTL(ttl time.Duration) Option { return func(s *settings) { s.ttl = ttl } }

// WithCache reads through a cache of secrets, such as Extension, where a value a
// little old will do. The client given to New is asked instead once the API has refused
// the token at hand, when the token is about to expire, and when the cache
// has none that lives.
func WithCache(cache SecretReader) Option { return func(s *settings) { s.cache = cache } }

// Source is the token of one connection. It implements oauth2.TokenSource and is safe for
// concurrent use.
//
// Use Client or Transport for requests. Wrappers that keep a token until it expires,
// such as oauth2.ReuseTokenSource and oauth2.NewClient, hide from this source
// that a token was refused.
type Source struct {
	connection token.Connection
	read       func(ctx context.Context, fresh bool) (token.Document, error) // not fresh: a cache may answer
	ttl        time.Duration
	patience   time.Duration
	ensure     ensurer

	held atomic.Pointer[held] // the newest document; written under mu

	mu         sync.Mutex
	flight     chan struct{} // closed when the read under way ends; nil: none is
	notBefore  time.Time     // of the next read
	misses     int           // reads in a row that brought nothing
	failure    error         // of the last look
	rejectedAt time.Time     // when the API first refused the held document's token; zero: it did not
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
	case set.ttl < minPace:
		return nil, fmt.Errorf("the TTL %v of the token source of %s is shorter than %v", set.ttl, c, minPace)
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

// Static is a source for tests that always has the given document: its
// AccessToken, CompanyID and APIURL count, and ExpiresAt if it is set.
func Static(document token.Document) *Source {
	s := &Source{connection: document.Connection, ttl: defaultTTL,
		read: func(context.Context, bool) (token.Document, error) { return document, nil }}
	s.settle(finding{document: document})
	return s
}

// readSecret asks for AWSCURRENT by name: that is what a policy can be limited to.
func readSecret(ctx context.Context, client SecretReader, name string, c token.Connection) (token.Document, error) {
	out, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name,
		VersionStage: new("AWSCURRENT")})
	switch {
	case err != nil:
		return token.Document{}, classify(err, name)
	case out.SecretString == nil:
		return token.Document{}, fmt.Errorf("%w: secret %s holds no text", ErrUnusable, name)
	}
	document, err := token.ParseDocument(token.NewSecret(*out.SecretString))
	switch {
	case err != nil:
		return token.Document{}, fmt.Errorf("%w: secret %s: %w", ErrUnusable, name, err)
	case document.Connection != c:
		return token.Document{}, fmt.Errorf("%w: secret %s holds a token of %s", ErrUnusable, name, document.Connection)
	}
	document.SealedAnswer = nil // of no use here
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

// Document returns what the secret says, but for its sealed part: the token,
// the API's base URL, the company. It waits for a look only if there is no
// living token, or if it is the one call that looks for a newer one. That takes
// some seconds at most, or as long as a rotation if WithEnsure has one made
// because there is no living token.
func (s *Source) Document(ctx context.Context) (token.Document, error) {
	h, err := s.find(ctx)
	if err != nil {
		return token.Document{}, err
	}
	return h.document, nil
}

// find takes no lock and allocates nothing while no look is due: programs call it for every request.
func (s *Source) find(ctx context.Context) (*held, error) {
	if h := s.held.Load(); h != nil && time.Now().Before(h.checkAt) {
		return h, nil
	}
	s.mu.Lock()
	mine, living := s.startLook(ctx), alive(s.held.Load(), time.Now())
	flight := s.flight
	s.mu.Unlock()
	patient, cancel := ctx, context.CancelFunc(func() {})
	switch {
	case living && !mine:
		flight = nil // another call looks; this one need not wait
	case living:
		patient, cancel = context.WithTimeout(ctx, readTimeout)
	}
	defer cancel()
	if wait(patient, flight) != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("waiting for the token of %s: %w", s.connection, ctx.Err())
	}
	return s.answer()
}

// answer is what is known without reading.
func (s *Source) answer() (*held, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held.Load()
	switch {
	case alive(h, time.Now()):
		return h, nil
	case h == nil:
		return nil, fmt.Errorf("reading the token of %s: %w", s.connection, s.failure)
	}
	err := fmt.Errorf("%w: that of %s did at %s by this machine's clock; see whether the rotation runs and "+
		"whether the connection needs consent (tokenturn connection show %s says both)", ErrExpired, s.connection,
		h.document.ExpiresAt.Format(time.RFC3339), s.connection)
	if s.failure != nil {
		err = fmt.Errorf("%w; the last look for a newer one: %w", err, s.failure)
	}
	return nil, err
}

// finding is what a look brought: the secret's document or why there is none,
// and what the rotate function said if it was asked.
type finding struct {
	document token.Document
	err      error
	asked    bool
	refusal  error
}

// startLook begins a look at the secret unless one is under way or it is too early for one.
// The caller holds mu.
func (s *Source) startLook(ctx context.Context) bool {
	now := time.Now()
	if s.flight != nil || now.Before(s.notBefore) {
		return false
	}
	done := make(chan struct{})
	s.flight = done
	h := s.held.Load()
	fresh := h != nil && (!s.rejectedAt.IsZero() || !h.document.ExpiresAt.IsZero() && !now.Before(s.soon(h.document)))
	ask := s.ensure.may(now)
	// Others may come to wait for this look, so its end is not that of the call that began it.
	ctx = context.WithoutCancel(ctx)
	go func() {
		f := s.look(ctx, fresh, ask)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settle(f)
		s.flight = nil
		close(done)
	}()
	return true
}

// look reads the secret and, if what it holds lives too short, once more after
// the rotate function was asked for a better one.
func (s *Source) look(ctx context.Context, fresh, ask bool) finding {
	document, err := s.read(ctx, fresh)
	f := finding{document: document, err: err}
	if !ask || !s.ensure.wants(document, err) {
		return f
	}
	f.asked = true
	if f.refusal = s.ensure.ask(ctx, s.connection, document); f.refusal != nil {
		return f
	}
	if document, err = s.read(ctx, true); err == nil || f.err != nil { // else the first one is better than none
		f.document, f.err = document, err
	}
	return f
}

// settle takes in what a look brought. The caller holds mu.
func (s *Source) settle(f finding) {
	now := time.Now()
	h := s.held.Load()
	progress := f.err == nil && (h == nil || newer(f.document, h.document))
	if progress {
		s.rejectedAt = time.Time{}
	}
	if f.err == nil && supersedes(f.document, h, now) {
		h = hold(f.document, time.Time{})
	}
	s.failure = s.ensure.settle(f, progress, now)
	if s.failure == nil && s.rejectedAt.IsZero() && alive(h, now) {
		s.misses = 0
		s.notBefore = now.Add(minPace)
		s.held.Store(hold(h.document, s.nextCheck(h.document, now)))
		return
	}
	s.notBefore = now.Add(min(minPace<<s.misses, maxPace))
	if s.rejectedAt.IsZero() || !now.Before(s.rejectedAt.Add(hope)) {
		s.misses = min(s.misses+1, 10)
	}
	if h != nil {
		s.held.Store(hold(h.document, earlier(s.notBefore.Round(0), h.document.ExpiresAt)))
	}
}

// nextCheck is when a newer document is looked for in good times.
func (s *Source) nextCheck(d token.Document, now time.Time) time.Time {
	ttl := s.ttl - rand.N(s.ttl/5+1)
	if d.ExpiresAt.IsZero() {
		return now.Add(ttl).Round(0)
	}
	next := now.Add(minPace).Round(0)
	check := earlier(now.Add(ttl).Round(0), s.soon(d))
	if check.Before(next) {
		check = next
	}
	return earlier(check, d.ExpiresAt)
}

// soon is from when on the token of d, which expires, is about to do so.
func (s *Source) soon(d token.Document) time.Time {
	early := min(margin, lifetime(d)/4)
	return d.ExpiresAt.Add(-max(early, s.ensure.least(d)))
}

func lifetime(d token.Document) time.Duration { return max(0, d.ExpiresAt.Sub(d.CreatedAt)) }

// awaitNewer is called when the API refused the token of d. It looks for a
// newer one: repeatedly for the patience of a request while there is hope, so that a
// token about to be published is found; once, if it is time for a read, after that.
func (s *Source) awaitNewer(ctx context.Context, d token.Document) (token.Document, bool) {
	until := s.reject(d)
	for {
		s.mu.Lock()
		if h := s.held.Load(); newer(h.document, d) {
			s.mu.Unlock()
			return h.document, alive(h, time.Now())
		}
		s.startLook(ctx)
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
		timed, cancel := context.WithTimeout(ctx, readTimeout) // what a look needs, if it need not rotate
		err := wait(timed, flight)
		cancel()
		if err != nil {
			return token.Document{}, false
		}
	}
}

// reject notes that the API refused the token of d, so that it is no longer
// used without a look, and returns until when the request may wait for a newer one.
func (s *Source) reject(d token.Document) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held.Load(); s.rejectedAt.IsZero() && !newer(h.document, d) {
		s.rejectedAt = time.Now()
		s.held.Store(hold(h.document, time.Time{}))
	}
	return earlier(time.Now().Add(s.patience), s.rejectedAt.Add(hope))
}

// wait waits for a read that may be nil, which is over.
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
