//go:build conformance

package conformance

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// canaries are secrets; the end of a test checks where they are.
type canaries struct {
	mu  sync.Mutex
	all map[string]string // secret: what it is
}

func (c *canaries) add(what, secret string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[string]string{}
	}
	if len(secret) >= 16 { // a shorter one would be found by chance
		c.all[secret] = what
	}
}

// in returns what of the canaries text contains, raw or encoded.
func (c *canaries) in(text string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []string
	for secret, what := range c.all {
		for _, form := range forms(secret) {
			if i := strings.Index(text, form); i >= 0 {
				found = append(found, fmt.Sprintf("%s, after %q", what, text[max(0, i-40):i]))
				break
			}
		}
	}
	return found
}

// forms are the ways in which a secret may hide in text. The characters of
// these secrets are the same in URLs and in JSON; in base64 it depends on what
// precedes them in the encoded bytes.
func forms(secret string) []string {
	all := []string{secret, hex.EncodeToString([]byte(secret))}
	for shift := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
		inner := encoded[(shift*8+5)/6 : len(encoded)-1]
		all = append(all, inner, strings.NewReplacer("+", "-", "/", "_").Replace(inner))
	}
	return all
}

// keepsSecrets searches everything that this installation wrote anywhere but to
// the provider, and says for a summary how much that was.
func (in *installation) keepsSecrets() string {
	in.t.Helper()
	all := in.provider.issued()
	var publishable []string // the one kind of secret that belongs into the secret store
	for _, pair := range all.Tokens {
		in.canary.add("refresh token", pair.Refresh)
		in.canary.add("access token", pair.Access)
		publishable = append(publishable, pair.Access, "")
	}
	secrets := strings.NewReplacer(publishable...)
	for _, grant := range all.Codes {
		in.canary.add("code", grant.Code)
	}
	places := map[string]string{"logs": in.logs.String(), "answers": in.answers.String(), "pages": in.pages.String(),
		"table": in.scan()}
	calls, _ := in.tap.since(0)
	for _, c := range calls {
		switch c.Name {
		case "CreateSecret", "PutSecretValue":
			places["secret store"] += secrets.Replace(string(c.Body)) + "\n"
		default:
			if c.Peer == "aws" { // queue bodies, notices, expressions
				places["request "+c.Name] += string(c.Body) + "\n"
			}
		}
	}
	size := 0
	for place, text := range places {
		size += len(text)
		for _, found := range in.canary.in(text) {
			in.t.Errorf("%s: contains a %s", place, found)
		}
	}
	return fmt.Sprintf("%d secrets sought in %d kinds of places, %d KiB", len(in.canary.all), len(places), size>>10)
}

// scan is every item of the table as text.
func (in *installation) scan() string {
	in.t.Helper()
	var text strings.Builder
	pages := dynamodb.NewScanPaginator(in.dynamodb, &dynamodb.ScanInput{TableName: aws.String(in.env["TOKENTURN_TABLE"])})
	for pages.HasMorePages() {
		out, err := pages.NextPage(in.t.Context())
		in.must(err)
		for _, item := range out.Items {
			write(&text, &dynamodbtypes.AttributeValueMemberM{Value: item})
			text.WriteByte('\n')
		}
	}
	return text.String()
}

// write prints a value, bytes as they are, so that an open secret is found in them.
func write(out *strings.Builder, value dynamodbtypes.AttributeValue) {
	switch v := value.(type) {
	case *dynamodbtypes.AttributeValueMemberM:
		for name, inner := range v.Value {
			out.WriteString(name + "=")
			write(out, inner)
			out.WriteByte(' ')
		}
	case *dynamodbtypes.AttributeValueMemberL:
		for _, inner := range v.Value {
			write(out, inner)
			out.WriteByte(' ')
		}
	case *dynamodbtypes.AttributeValueMemberB:
		out.Write(v.Value)
	case *dynamodbtypes.AttributeValueMemberS:
		out.WriteString(v.Value)
	default:
		fmt.Fprintf(out, "%v", v)
	}
}

// versions counts the versions of a connection's secret; 0 if there is none.
func (in *installation) versions(connection string) int {
	in.t.Helper()
	out, err := in.secrets.ListSecretVersionIds(in.t.Context(), &secretsmanager.ListSecretVersionIdsInput{
		SecretId: aws.String(in.secretName(connection)), IncludeDeprecated: aws.Bool(true)})
	if err != nil {
		return 0
	}
	return len(out.Versions)
}
