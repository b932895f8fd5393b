package tokensource_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"

	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/tokensourcetest"
)

const acme = "production/acme"

func newSource(t *testing.T, reader tokensource.SecretReader, options ...tokensource.Option) *tokensource.Source {
	t.Helper()
	source, err := tokensource.New(reader, acme, options...)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// expect asks for a token and wants that of the secret's document.
func expect(t *testing.T, source *tokensource.Source, want token.Document) {
	t.Helper()
	got, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	if got.AccessToken != want.AccessToken.Reveal() || !got.Expiry.Equal(want.ExpiresAt) || got.TokenType != "Bearer" {
		t.Errorf("another token, or expiry %v; want generation %d, expiry %v", got.Expiry, want.Generation, want.ExpiresAt)
	}
}

var errDown = errors.New("connection reset by peer")

func denied() error { return &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "no"} }

func TestTokenIsReadOnceInATTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		source := newSource(t, secret)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { expect(t, source, secret.Document()) })
		}
		all.Wait()
		time.Sleep(47 * time.Second) // a minute less a fifth is 48 s
		expect(t, source, secret.Document())
		if secret.Reads() != 1 {
			t.Errorf("%d reads within the TTL", secret.Reads())
		}
		secret.Rotate()
		time.Sleep(14 * time.Second)
		expect(t, source, secret.Document())
		if secret.Reads() != 2 {
			t.Errorf("%d reads after the TTL", secret.Reads())
		}
	})
}

// Programs that start together do not keep reading at the same times.
func TestReadsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		sources := make([]*tokensource.Source, 50)
		for i := range sources {
			sources[i] = newSource(t, secret)
			expect(t, sources[i], secret.Document())
		}
		time.Sleep(48 * time.Second)
		most := 0
		for range 13 {
			before := secret.Reads()
			for _, source := range sources {
				expect(t, source, secret.Document())
			}
			most = max(most, secret.Reads()-before)
			time.Sleep(time.Second)
		}
		if reads := secret.Reads(); reads != 2*len(sources) || most > len(sources)/2 {
			t.Errorf("%d reads, %d of them in one second", reads, most)
		}
	})
}

// An allocation in every call would make thousands of goroutines wait for the garbage collector.
func TestWarmTokenAllocatesNothing(t *testing.T) {
	source := newSource(t, tokensourcetest.New(acme))
	if n := testing.AllocsPerRun(1000, func() { _, _ = source.Token() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestNothingIsReadInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		source := newSource(t, secret)
		expect(t, source, secret.Document())
		time.Sleep(time.Hour)
		if secret.Reads() != 1 {
			t.Errorf("%d reads", secret.Reads())
		}
	})
}

func TestTokenIsLookedForBeforeItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		source := newSource(t, secret, tokensource.WithTTL(24*time.Hour))
		expect(t, source, secret.Document())
		time.Sleep(tokensourcetest.Lifetime - 31*time.Second)
		expect(t, source, secret.Document())
		if secret.Reads() != 1 {
			t.Errorf("%d reads before the margin", secret.Reads())
		}
		secret.Rotate()
		time.Sleep(2 * time.Second)
		expect(t, source, secret.Document())
	})
}

// If a token expires before the TTL ends, its expiry decides.
func TestShortLivedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		source := newSource(t, secret)
		for range 20 {
			secret.Rotate()
			secret.Edit(func(d *token.Document) { d.ExpiresAt = d.CreatedAt.Add(24 * time.Second) })
			time.Sleep(20 * time.Second) // within the last quarter of the token's life
			expect(t, source, secret.Document())
		}
	})
}

// gated blocks every read until the test releases it.
type gated struct {
	tokensource.SecretReader
	gate chan struct{}
}

func (g gated) GetSecretValue(ctx context.Context, in *secretsmanager.GetSecretValueInput,
	o ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	select {
	case <-g.gate:
		return g.SecretReader.GetSecretValue(ctx, in, o...)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		reader := gated{secret, make(chan struct{})}
		source := newSource(t, reader)
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() { expect(t, source, secret.Document()) })
		}
		impatient, cancel := context.WithCancel(t.Context())
		all.Go(func() {
			if _, err := source.Document(impatient); !errors.Is(err, context.Canceled) {
				t.Errorf("the cancelled call got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		reader.gate <- struct{}{}
		all.Wait()
		if secret.Reads() != 1 {
			t.Errorf("%d reads", secret.Reads())
		}
	})
}

// The call that begins a read may be cancelled without harm to the others that wait for it.
func TestCancelledLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		reader := gated{secret, make(chan struct{})}
		source := newSource(t, reader)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := source.Document(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		})
		synctest.Wait()
		all.Go(func() { expect(t, source, secret.Document()) })
		cancel()
		synctest.Wait()
		reader.gate <- struct{}{}
		all.Wait()
	})
}

// While one call reads for a newer token, the others use the valid one.
func TestOthersDoNotWaitForARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		reader := gated{secret, make(chan struct{}, 1)}
		source := newSource(t, reader)
		reader.gate <- struct{}{}
		expect(t, source, secret.Document())
		time.Sleep(2 * time.Minute)
		var looker sync.WaitGroup
		looker.Go(func() { source.Token() })
		synctest.Wait()
		before := time.Now()
		expect(t, source, secret.Document())
		if waited := time.Since(before); waited != 0 {
			t.Errorf("waited %v", waited)
		}
		reader.gate <- struct{}{}
		looker.Wait()
	})
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		source := newSource(t, secret)
		expect(t, source, secret.Document())
		secret.Fail(errDown)
		time.Sleep(time.Minute)
		for range int(tokensourcetest.Lifetime/time.Second) - 61 { // the last good token serves until its end
			expect(t, source, secret.Document())
			time.Sleep(time.Second)
		}
		if reads := secret.Reads(); reads > 90*6+10 {
			t.Errorf("%d reads in an outage of 89 minutes", reads)
		}
		time.Sleep(2 * time.Second)
		_, err := source.Token()
		if !errors.Is(err, tokensource.ErrExpired) || !errors.Is(err, tokensource.ErrUnavailable) ||
			!errors.Is(err, errDown) {
			t.Errorf("after the end: %v", err)
		}
		secret.Fail(nil)
		secret.Rotate()
		time.Sleep(11 * time.Second)
		expect(t, source, secret.Document())
	})
}

// A read that hangs ends by its timeout.
func TestHangingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newSource(t, gated{tokensourcetest.New(acme), make(chan struct{})})
		began := time.Now()
		_, err := source.Token()
		if !errors.Is(err, tokensource.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if waited := time.Since(began); waited != 5*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

// Faults of one read. Stale reads, storms of 401s, skewed clocks and cancelled contexts need more than
// one read and have tests of their own: TestNeverBackAGeneration, TestStorm, TestSkewedClock,
// TestOneFlight and TestCancelledLeader.
func TestFaults(t *testing.T) {
	const canary = "canary-f00d"
	document := func(edit func(*token.Document)) string {
		secret := tokensourcetest.New(acme)
		secret.Edit(func(d *token.Document) { d.AccessToken = token.NewSecret(canary) })
		secret.Edit(edit)
		value, err := secret.Document().Encode()
		if err != nil {
			t.Fatal(err)
		}
		return value.Reveal()
	}
	tests := map[string]struct {
		spoil func(*tokensourcetest.Secret)
		want  error
		says  string
	}{
		"no secret": {func(s *tokensourcetest.Secret) { s.Fail(&types.ResourceNotFoundException{}) },
			tokensource.ErrNotFound, "tokenturn/connection/production/acme"},
		"being deleted": {func(s *tokensourcetest.Secret) { s.Fail(&types.InvalidRequestException{}) },
			tokensource.ErrNotFound, "being deleted"},
		"access denied": {func(s *tokensourcetest.Secret) { s.Fail(denied()) }, tokensource.ErrDenied,
			"secretsmanager:GetSecretValue"},
		"no key": {func(s *tokensourcetest.Secret) { s.Fail(&types.DecryptionFailure{}) },
			tokensource.ErrDenied, "kms:Decrypt"},
		"Secrets Manager down": {func(s *tokensourcetest.Secret) { s.Fail(errDown) }, tokensource.ErrUnavailable,
			"connection reset"},
		"internal error": {func(s *tokensourcetest.Secret) { s.Fail(&types.InternalServiceError{}) },
			tokensource.ErrUnavailable, ""},
		"corrupt": {func(s *tokensourcetest.Secret) { s.SetValue(`{"access_token":"` + canary) },
			tokensource.ErrUnusable, "not the JSON"},
		"empty":      {func(s *tokensourcetest.Secret) { s.SetValue("") }, tokensource.ErrUnusable, ""},
		"bare token": {func(s *tokensourcetest.Secret) { s.SetValue(canary) }, tokensource.ErrUnusable, ""},
		"other format": {func(s *tokensourcetest.Secret) { s.SetValue(`{"format":2}`) }, tokensource.ErrUnusable,
			"format is 2"},
		"wrong environment": {func(s *tokensourcetest.Secret) {
			s.SetValue(document(func(d *token.Document) { d.Connection.Environment = "sandbox" }))
		}, tokensource.ErrUnusable, "has a token of sandbox/acme"},
		"expired token": {func(s *tokensourcetest.Secret) {
			s.SetValue(document(func(d *token.Document) { d.ExpiresAt = time.Now().Add(-time.Minute) }))
		}, tokensource.ErrExpired, "whether the rotation runs"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				secret := tokensourcetest.New(acme)
				source := newSource(t, secret)
				test.spoil(secret)
				for range 100 { // within one second
					_, err := source.Token()
					if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(),
						acme) {
						t.Fatalf("error %v, want %v with %q", err, test.want, test.says)
					}
					for _, other := range []error{tokensource.ErrNotFound, tokensource.ErrDenied, tokensource.ErrUnusable,
						tokensource.ErrUnavailable, tokensource.ErrExpired} {
						if other != test.want && errors.Is(err, other) {
							t.Fatalf("error %v is %v too", err, other)
						}
					}
					if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary) {
						t.Fatalf("the error shows the token: %v", err)
					}
				}
				if secret.Reads() != 1 {
					t.Errorf("%d reads in a moment", secret.Reads())
				}
			})
		})
	}
}

// When the fault is over, the source recovers without help.
func TestRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		source := newSource(t, secret)
		secret.Fail(&types.ResourceNotFoundException{})
		for range 60 {
			if _, err := source.Token(); !errors.Is(err, tokensource.ErrNotFound) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if secret.Reads() > 12 {
			t.Errorf("%d reads in a minute", secret.Reads())
		}
		secret.Fail(nil)
		time.Sleep(10 * time.Second)
		expect(t, source, secret.Document())
	})
}

// Reads may show an earlier version; the source does not.
func TestNeverBackAGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := tokensourcetest.New(acme)
		source := newSource(t, secret)
		secret.Rotate()
		older := secret.Document()
		secret.Rotate()
		newest := secret.Document()
		expect(t, source, newest)
		for _, stale := range []func(*token.Document){
			func(d *token.Document) { *d = older },
			func(d *token.Document) { *d = newest; d.Epoch, d.Generation = 0, 99 },
		} {
			secret.Edit(stale)
			time.Sleep(2 * time.Minute)
			expect(t, source, newest)
		}
		if secret.Reads() != 3 {
			t.Errorf("%d reads", secret.Reads())
		}

		// A document of a new installation is accepted when the last token has expired.
		time.Sleep(tokensourcetest.Lifetime)
		secret.Edit(func(d *token.Document) { *d = older; d.ExpiresAt = time.Now().Add(time.Hour) })
		expect(t, source, secret.Document())
	})
}

func TestNewRefuses(t *testing.T) {
	secret := tokensourcetest.New(acme)
	if _, err := tokensource.New(secret, "acme"); err == nil || !strings.Contains(err.Error(), "environment/name") {
		t.Errorf("bad name: %v", err)
	}
	if _, err := tokensource.New(nil, acme); err == nil {
		t.Error("no client was accepted")
	}
	if _, err := tokensource.New(secret, acme, tokensource.WithTTL(0)); err == nil || !strings.Contains(err.Error(),
		"TTL") {
		t.Errorf("no TTL: %v", err)
	}
}

func TestPrefix(t *testing.T) {
	var asked *secretsmanager.GetSecretValueInput
	reader := readerFunc(func(in *secretsmanager.GetSecretValueInput) { asked = in })
	if _, err := newSource(t, reader, tokensource.WithPrefix("eu/tokens")).Token(); err == nil {
		t.Error("an empty answer was accepted")
	}
	if *asked.SecretId != "eu/tokens/connection/production/acme" || *asked.VersionStage != "AWSCURRENT" {
		t.Errorf("asked for %s, %s", *asked.SecretId, *asked.VersionStage)
	}
}

// readerFunc sees the input and answers without a value.
type readerFunc func(*secretsmanager.GetSecretValueInput)

func (f readerFunc) GetSecretValue(_ context.Context, in *secretsmanager.GetSecretValueInput,
	_ ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	f(in)
	return &secretsmanager.GetSecretValueOutput{}, nil
}

func TestPrintingShowsNoToken(t *testing.T) {
	secret := tokensourcetest.New(acme)
	source := newSource(t, secret)
	document, err := source.Document(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%v %+v %#v %v %+v %#v", source, source, source, document, document, document)
	if strings.Contains(shown, secret.Document().AccessToken.Reveal()) {
		t.Error("the token is shown")
	}
}
