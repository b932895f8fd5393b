// Command example-reader is an example of a Lambda function that uses a token: it lists
// the projects of a company. Its deployment is infra/examples/reader.yaml.
//
// An event may name the company, {"company_id":"4264807"}; the default is the
// connection's company. The answer is [{"id":1,"name":"..."}, ...].
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/ensure"
)

func main() {
	err := run(context.Background(), os.Getenv, func(h lambda.Handler) { lambda.Start(h) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "example-reader:", err)
		os.Exit(1)
	}
}

// run makes the source once, so that its cached token serves every event in this
// execution environment.
func run(ctx context.Context, getenv func(string) string, start func(lambda.Handler)) error {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("loading the configuration of the AWS SDK: %w", err)
	}
	var options []tokensource.Option
	if prefix := getenv("TOKENTURN_SECRET_PREFIX"); prefix != "" {
		options = append(options, tokensource.WithPrefix(prefix))
	}
	if name := getenv("TOKENTURN_ROTATE_FUNCTION"); name != "" {
		options = append(options, tokensource.WithEnsure(ensure.Function(awslambda.NewFromConfig(cfg), name), 5*time.Minute))
	}
	source, err := tokensource.New(secretsmanager.NewFromConfig(cfg), getenv("TOKENTURN_CONNECTION"), options...)
	if err != nil {
		return fmt.Errorf("reading TOKENTURN_CONNECTION: %w", err)
	}
	start(lambda.NewHandler(reader{source, source.Client(ctx)}.projects))
	return nil
}

type reader struct {
	source *tokensource.Source
	client *http.Client
}

type request struct {
	CompanyID string `json:"company_id"`
}

type project struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

// projects lists all pages
// (https://developers.procore.com/documentation/content/pagination).
func (r reader) projects(ctx context.Context, in request) ([]project, error) {
	document, err := r.source.Document(ctx)
	if err != nil {
		return nil, err
	}
	company := in.CompanyID
	if company == "" {
		company = document.CompanyID
	}
	if company == "" {
		return nil, fmt.Errorf("connection %s is not for one company: name it in the event as company_id",
			document.Connection)
	}
	all := []project{}
	for page, more := 1, true; more; page++ {
		var some []project
		query := url.Values{"company_id": {company}, "per_page": {"100"}, "page": {strconv.Itoa(page)}}
		if more, err = r.get(ctx, document.APIURL+"/rest/v1.0/projects?"+query.Encode(), company, &some); err != nil {
			return nil, fmt.Errorf("listing the projects of company %s, page %d: %w", company, page, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// get reports whether a page follows. The client adds the token, and the
// company if the request names none.
func (r reader) get(ctx context.Context, address, company string, out any) (more bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return false, err
	}
	request.Header.Set("Procore-Company-Id", company)
	response, err := r.client.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return false, errors.New("the API answers " + response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return false, fmt.Errorf("reading the answer: %w", err)
	}
	return strings.Contains(response.Header.Get("Link"), `rel="next"`), nil
}
