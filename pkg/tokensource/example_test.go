package tokensource_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/tokensourcetest"
)

// A Lambda function makes its source once, outside the handler.
func Example() {
	ctx := context.Background()
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		log.Fatal(err)
	}
	source, err := tokensource.New(secretsmanager.NewFromConfig(cfg), "production/acme")
	if err != nil {
		log.Fatal(err)
	}

	response, err := source.Client(ctx).Get("https://api.procore.com/rest/v1.0/me")
	switch {
	case errors.Is(err, tokensource.ErrExpired), errors.Is(err, tokensource.ErrNotFound):
		log.Fatal("the connection needs attention: ", err)
	case err != nil:
		log.Fatal(err)
	}
	defer response.Body.Close()
	fmt.Println(response.Status)
}

// Behind the AWS Parameters and Secrets Lambda Extension: reads go through it, except
// those that must be fresh.
func ExampleWithCache() {
	cfg, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	source, err := tokensource.New(secretsmanager.NewFromConfig(cfg), "production/acme",
		tokensource.WithCache(tokensource.Extension()))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(source.Client(context.Background()).Get("https://api.procore.com/rest/v1.0/me"))
}

// Behind the AWS caching library for Go, with the library's time to live at a minute:
//
//	cache, err := secretcache.New(func(c *secretcache.Cache) { c.CacheItemTTL = time.Minute.Nanoseconds() })
func ExampleWithCache_library() {
	var cache library // as above
	cfg, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	source, err := tokensource.New(secretsmanager.NewFromConfig(cfg), "production/acme",
		tokensource.WithCache(fromLibrary{cache}))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(source.Client(context.Background()).Get("https://api.procore.com/rest/v1.0/me"))
}

// library is the part of *secretcache.Cache that is needed.
type library interface {
	GetSecretStringWithContext(ctx context.Context, id string) (string, error)
}

// fromLibrary makes a SecretReader of it.
type fromLibrary struct{ cache library }

func (f fromLibrary) GetSecretValue(ctx context.Context, in *secretsmanager.GetSecretValueInput,
	_ ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	value, err := f.cache.GetSecretStringWithContext(ctx, *in.SecretId)
	if err != nil {
		return nil, err
	}
	return &secretsmanager.GetSecretValueOutput{SecretString: &value}, nil
}

// A document has the address of the connection's API and the company.
func ExampleSource_Document() {
	source := tokensource.Static(token.Document{AccessToken: token.NewSecret("any"), APIURL: "https://sandbox.procore.com",
		CompanyID: "7"})
	document, err := source.Document(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(document.APIURL+"/rest/v1.0/projects?company_id="+document.CompanyID, document.AccessToken)
	// Output: https://sandbox.procore.com/rest/v1.0/projects?company_id=7 [redacted]
}

// Programs are tested with a token that does not change ...
func ExampleStatic() {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.Header.Get("Authorization"), "for", r.Header.Get("Procore-Company-Id"))
	}))
	defer api.Close()

	source := tokensource.Static(token.Document{AccessToken: token.NewSecret("test"), CompanyID: "7", APIURL: api.URL})
	fmt.Print(read(source.Client(context.Background()).Get(api.URL)))
	// Output: Bearer test for 7
}

// ... or with a secret that rotates on command.
func Example_rotation() {
	secret := tokensourcetest.New("sandbox/acme")
	api := httptest.NewServer(secret.Protect(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "welcome")
	})))
	defer api.Close()
	secret.Edit(func(d *token.Document) { d.APIURL = api.URL })

	source, err := tokensource.New(secret, "sandbox/acme")
	if err != nil {
		log.Fatal(err)
	}
	client := source.Client(context.Background())
	fmt.Print(read(client.Get(api.URL)))
	secret.Rotate() // kills the token that the client holds
	fmt.Print(read(client.Get(api.URL)))
	// Output:
	// welcome
	// welcome
}

func read(response *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}
