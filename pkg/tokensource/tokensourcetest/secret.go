// Package tokensourcetest is for tests of programs that use package tokensource,
// without AWS: a secret that rotates on command, and an API that accepts only its
// current token.
//
// A source reads its secret at most once a second. A test that rotates faster
// waits for that second, unless it runs inside testing/synctest.
package tokensourcetest

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
)

// Lifetime is how long the tokens of a new Secret live, as Procore's do.
const Lifetime = 90 * time.Minute

// Secret simulates the secret of one connection and a Secrets Manager with no other
// secret. It is safe for concurrent use.
type Secret struct {
	mu       sync.Mutex
	document token.Document
	value    *string // instead of the document
	failure  error
	reads    int
}

var _ tokensource.SecretReader = (*Secret)(nil)

// New makes the secret of a connection such as "production/acme", with a fresh
// token. It panics if the name is not a connection's name.
func New(connection string) *Secret {
	c, err := token.ParseConnection(connection)
	if err != nil {
		panic(err)
	}
	s := &Secret{document: token.Document{Connection: c, Environment: c.Environment, TokenType: "Bearer", Epoch: 1,
		Stack: "test"}}
	s.renew()
	return s
}

// renew gives the document another token.
func (s *Secret) renew() {
	now := time.Now().UTC().Truncate(time.Second)
	s.document.AccessToken = token.NewSecret("access-" + rand.Text())
	s.document.CreatedAt, s.document.SavedAt, s.document.ExpiresAt = now, now, now.Add(Lifetime)
}

// Rotate replaces the token by the next generation's. The API no longer accepts the old one.
func (s *Secret) Rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.document.Generation++
	s.renew()
}

// Edit lets edit change the document, such as its company, its API's URL or its expiry.
func (s *Secret) Edit(edit func(*token.Document)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit(&s.document)
}

// Document returns the document.
func (s *Secret) Document() token.Document {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.document
}

// SetValue replaces the secret's document by any text.
func (s *Secret) SetValue(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value = &value
}

// Fail makes every read fail with err, such as a *types.ResourceNotFoundException of
// the SDK, until it is called with nil.
func (s *Secret) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}

// Reads returns how often the secret has been read, failures included.
func (s *Secret) Reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// GetSecretValue implements tokensource.SecretReader.
func (s *Secret) GetSecretValue(ctx context.Context, in *secretsmanager.GetSecretValueInput,
	_ ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case s.failure != nil:
		return nil, s.failure
	case in.SecretId == nil || !strings.HasSuffix(*in.SecretId, "/connection/"+s.document.Connection.String()):
		return nil, &types.ResourceNotFoundException{Message: new("Secrets Manager can't find the specified secret.")}
	case s.value != nil:
		return &secretsmanager.GetSecretValueOutput{SecretString: s.value}, nil
	}
	value, err := s.document.Encode()
	if err != nil {
		return nil, fmt.Errorf("encoding the test secret: %w", err)
	}
	return &secretsmanager.GetSecretValueOutput{SecretString: new(value.Reveal())}, nil
}

// Protect wraps an API: it answers 401 unless a request carries the current token.
func (s *Secret) Protect(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want := "Bearer " + s.Document().AccessToken.Reveal()
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(want)) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "the access token is not the current one", http.StatusUnauthorized)
			return
		}
		api.ServeHTTP(w, r)
	})
}
