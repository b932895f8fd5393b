package ensure_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/ensure"
)

// A token with at least five minutes left, and a better error if there is none.
func Example() {
	ctx := context.Background()
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		log.Fatal(err)
	}
	rotate := ensure.Function(lambda.NewFromConfig(cfg), os.Getenv("TOKENTURN_ROTATE_FUNCTION"))
	source, err := tokensource.New(secretsmanager.NewFromConfig(cfg), "production/acme", tokensource.WithEnsure(rotate,
		5*time.Minute))
	if err != nil {
		log.Fatal(err)
	}

	document, err := source.Document(ctx)
	switch {
	case errors.Is(err, tokensource.ErrNeedsConsent):
		log.Fatal("send the person who connected it a new invitation: ", err)
	case errors.Is(err, tokensource.ErrRotationInProgress):
		log.Fatal("try again in a minute: ", err)
	case err != nil:
		log.Fatal(err)
	}
	fmt.Println(document.ExpiresAt)
}
