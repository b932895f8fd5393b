//go:build conformance

package dynamo_test

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/tokenturn/tokenturn/pkg/dynamo"
	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Of ten thousand connections one in twenty is due: they are found, the most overdue
// first, without a scan and within 30 pages.
func TestWhatIsDueIsFoundWithoutAScan(t *testing.T) {
	const connections, due = 10_000, 500
	name := makeTable(t)
	maker := dynamodb.NewFromConfig(awstest.Server(t, http.DefaultTransport))
	want := map[string]int{} // seconds that it is overdue
	var fill errgroup.Group
	fill.SetLimit(2)
	var batch []types.WriteRequest
	for i := range connections {
		c, at := fmt.Sprintf("sandbox/c%05d", (i*7919)%connections), noon.Add(time.Duration(i-due+1)*time.Second)
		if i < due {
			want[c] = due - 1 - i
		}
		batch = append(batch, types.WriteRequest{PutRequest: &types.PutRequest{Item: dueRow(c, at)}})
		if len(batch) == 25 || i == connections-1 {
			rows := batch
			batch = nil
			fill.Go(func() error {
				_, err := maker.BatchWriteItem(t.Context(),
					&dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{name: rows}})
				return err
			})
		}
	}
	if err := fill.Wait(); err != nil {
		t.Fatal(err)
	}
	counter := &counter{reads: map[string]int{}}
	tab := dynamo.New(dynamodb.NewFromConfig(awstest.Server(t, counter)), name)
	got, err := tab.Due(t.Context(), noon)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != due || !slices.IsSortedFunc(got, func(a, b token.Connection) int {
		return cmp.Compare(want[b.String()],
			want[a.String()])
	}) {
		t.Errorf("%d connections are listed as due, want %d, the most overdue first", len(got), due)
	}
	if pages := counter.reads["Query"]; len(counter.reads) != 1 || pages > 30 {
		t.Errorf("listing them took %v, want at most 30 queries and nothing else", counter.reads)
	}
	t.Logf("%d of %d due: %v", due, connections, counter.reads)
}

// dueRow is a row of the size that a record has, as far as the index knows it.
func dueRow(connection string, at time.Time) map[string]types.AttributeValue {
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	return map[string]types.AttributeValue{"pk": text("CONN#" + connection), "sk": text("LEDGER"),
		"due_bucket": text("due"),
		"due_at":     &types.AttributeValueMemberN{Value: fmt.Sprint(at.Unix())}, "revision": text(strings.Repeat("r", 26)),
		"record": text(strings.Repeat("x", 900))}
}

// counter counts the requests that were answered.
type counter struct {
	mu    sync.Mutex
	reads map[string]int
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && answer.StatusCode == http.StatusOK {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		c.mu.Lock()
		c.reads[operation]++
		c.mu.Unlock()
	}
	return answer, err
}
