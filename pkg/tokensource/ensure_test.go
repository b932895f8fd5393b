package tokensource_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/tokensourcetest"
)

// renewer simulates the rotate function: it rotates a token with too little life, or refuses.
type renewer struct {
	secret *tokensourcetest.Secret
	life   time.Duration // of new tokens

	mu      sync.Mutex
	refusal error
	takes   time.Duration
	asked   []time.Duration
}

func (r *renewer) Renew(ctx context.Context, c token.Connection, min time.Duration) error {
	r.mu.Lock()
	r.asked = append(r.asked, min)
	refusal, takes := r.refusal, r.takes
	r.mu.Unlock()
	if takes > 0 {
		timed, cancel := context.WithTimeout(ctx, takes)
		defer cancel()
		<-timed.Done()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if refusal != nil {
		return refusal
	}
	if c.String() != acme {
		return errors.New("asked for another connection")
	}
	if time.Until(r.secret.Document().ExpiresAt) < min {
		r.secret.Rotate()
		r.secret.Edit(func(d *token.Document) { d.ExpiresAt = d.CreatedAt.Add(r.life) })
	}
	return nil
}

func (r *renewer) set(refusal error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusal = refusal
}

func (r *renewer) questions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

func newEnsured(t *testing.T, life, min time.Duration) (*tokensource.Source, *tokensourcetest.Secret, *renewer) {
	t.Helper()
	secret := tokensourcetest.New(acme)
	secret.Edit(func(d *token.Document) { d.ExpiresAt = d.CreatedAt.Add(life) })
	r := &renewer{secret: secret, life: life}
	return newSource(t, secret, tokensource.WithEnsure(r, min)), secret, r
}

// Tokens that live two minutes are available all day without a schedule, and each is used
// until little of its life is left.
func TestEnsureKeepsShortTokensFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, secret, r := newEnsured(t, 2*time.Minute, 30*time.Second)
		for range 24 * 60 * 2 {
			document, err := source.Document(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(document.ExpiresAt); left < 29*time.Second {
				t.Fatalf("a token with %v left", left)
			}
			time.Sleep(30 * time.Second)
		}
		if n := secret.Document().Generation; n > 24*60 || int64(r.questions()) != n {
			t.Errorf("%d rotations and %d questions in a day", n, r.questions())
		}
	})
}

// A token with enough life left causes no call.
func TestEnsureIsNotAskedWithoutNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, _, r := newEnsured(t, 90*time.Minute, 5*time.Minute)
		for range 84 {
			if _, err := source.Token(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if r.questions() != 0 {
			t.Errorf("asked %d times", r.questions())
		}
	})
}

// The source asks for at most half of a token's life: with more, every token would be too old.
func TestEnsureAsksForHalfALifeAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, secret, r := newEnsured(t, 10*time.Minute, time.Hour)
		for range 60 {
			if _, err := source.Token(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if n := secret.Document().Generation; n < 8 || n > 12 {
			t.Errorf("%d rotations in an hour", n)
		}
		for _, min := range r.asked {
			if min != 5*time.Minute {
				t.Errorf("asked for %v", min)
			}
		}
	})
}

func TestEnsureTellsWhy(t *testing.T) {
	for name, test := range map[string]struct {
		refusal error
		secret  error // of reading it; nil: it holds an expired token
		also    error
	}{
		"needs consent":                  {tokensource.ErrNeedsConsent, nil, tokensource.ErrExpired},
		"in progress":                    {tokensource.ErrRotationInProgress, nil, tokensource.ErrExpired},
		"removed":                        {tokensource.ErrNotFound, nil, tokensource.ErrExpired},
		"function fails":                 {errDown, nil, tokensource.ErrExpired},
		"never connected":                {tokensource.ErrNeedsConsent, &types.ResourceNotFoundException{}, nil},
		"connected, not yet published":   {tokensource.ErrRotationInProgress, &types.ResourceNotFoundException{}, nil},
		"an unknown name":                {tokensource.ErrNotFound, &types.ResourceNotFoundException{}, nil},
		"no secret and the function ill": {errDown, &types.ResourceNotFoundException{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, secret, r := newEnsured(t, time.Minute, 30*time.Second)
				secret.Fail(test.secret)
				r.set(test.refusal)
				time.Sleep(2 * time.Minute)
				for range 600 { // the reason stays the same between two questions
					_, err := source.Token()
					if !errors.Is(err, test.refusal) || test.also != nil && !errors.Is(err, test.also) {
						t.Fatalf("error %v", err)
					}
					time.Sleep(time.Second)
				}
				if n := r.questions(); n > 8 { // after 0, 10, 20, 40, 80, 160 and 300 s
					t.Errorf("%d questions in ten minutes", n)
				}
				secret.Fail(nil)
				secret.Rotate()
				time.Sleep(11 * time.Second)
				expect(t, source, secret.Document())
			})
		})
	}
}

// While the token is valid, neither the answer nor the duration of the rotate function matters.
func TestEnsureNeverWithholdsALivingToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, secret, r := newEnsured(t, 10*time.Minute, 5*time.Minute)
		r.set(tokensource.ErrRotationInProgress)
		r.takes = 30 * time.Second
		for time.Until(secret.Document().ExpiresAt) > 10*time.Second {
			began := time.Now()
			expect(t, source, secret.Document())
			if waited := time.Since(began); waited > 5*time.Second {
				t.Errorf("waited %v", waited)
			}
			time.Sleep(time.Second)
		}
		if secret.Reads() > 60 {
			t.Errorf("%d reads in ten minutes", secret.Reads())
		}
		time.Sleep(time.Minute) // for what is under way
	})
}

// If the secret cannot be read again after a rotation, the valid token that was read before is still used.
func TestReadAfterEnsureFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		secret.Edit(func(d *token.Document) { d.ExpiresAt = d.CreatedAt.Add(time.Minute) })
		before := secret.Document()
		time.Sleep(50 * time.Second)
		source := newSource(t, secret, tokensource.WithEnsure(failing{secret}, 30*time.Second))
		expect(t, source, before)
		secret.Fail(nil)
		time.Sleep(2 * time.Second)
		expect(t, source, secret.Document())
	})
}

// failing rotates, after which the secret cannot be read.
type failing struct{ secret *tokensourcetest.Secret }

func (f failing) Renew(context.Context, token.Connection, time.Duration) error {
	f.secret.Rotate()
	f.secret.Fail(errDown)
	return nil
}

// If the secret cannot be read, the function is not asked: its token could not be read either.
func TestEnsureDoesNotAskForWhatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, secret, r := newEnsured(t, time.Minute, 30*time.Second)
		for _, err := range []error{denied(), errDown} {
			secret.Fail(err)
			if _, got := source.Token(); !errors.Is(got, err) {
				t.Errorf("error %v", got)
			}
			time.Sleep(time.Minute)
		}
		if r.questions() != 0 {
			t.Errorf("asked %d times", r.questions())
		}
	})
}

// If the server has never said how long its tokens live, a token is used until the API refuses
// it, and no better one is asked for.
func TestATokenWithoutAKnownExpiryIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, secret, renewer := newEnsured(t, time.Hour, time.Minute)
		secret.Edit(func(d *token.Document) { d.ExpiresAt = d.CreatedAt })
		time.Sleep(24 * time.Hour)
		got, err := source.Token()
		if err != nil || got.AccessToken != secret.Document().AccessToken.Reveal() || !got.Expiry.IsZero() {
			t.Errorf("another token, or expiry %v: %v", got, err)
		}
		if renewer.questions() != 0 {
			t.Errorf("asked %d times for a better token", renewer.questions())
		}
	})
}
