//go:build conformance

package conformance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
)

// A secret takes about a hundred versions a day, so a hundred rotations need two connections.
var readConnections = []string{"peer/acme", "peer/globex"}

const (
	rotationsEach = 50
	readLifetime  = 10 * time.Minute // more than a slow machine needs to start all readers
)

// TestReadersNoticeNoRotation lets readers in four languages use the API while both
// connections are rotated again and again. No request may fail in the end. Beside them a
// naive reader, which keeps a token until it expires, shows what they are spared.
//
// Readers wait some seconds for a new token, so this test has the machine to itself: beside
// the other tests, publishing may take longer than that.
func TestReadersNoticeNoRotation(t *testing.T) {
	t.Run("stand-in", func(t *testing.T) {
		t.Parallel()
		installStandIn(t, "readers").hammer()
	})
	for _, grace := range []int{0, 1} {
		t.Run(fmt.Sprintf("Doorkeeper, GRACE=%d", grace), func(t *testing.T) {
			t.Parallel()
			in := install(t, startCloud(t), startProvider(t, grace, readLifetime), "readers", patient)
			for _, connection := range readConnections {
				in.connect(connection)
			}
			in.hammer()
		})
	}
}

// installStandIn has the project's own stand-in for Procore in Doorkeeper's place.
func installStandIn(t *testing.T, name string) *installation {
	t.Helper()
	server := procoretest.New(procoretest.WithLifetime(readLifetime))
	t.Cleanup(server.Close)
	app := server.NewApp(redirectURI)
	in := install(t, startCloud(t), &provider{t: t, url: server.URL, clientID: app.ClientID,
		clientSecret: app.ClientSecret.Reveal(),
		lifetime:     readLifetime}, name, patient)
	for _, connection := range readConnections {
		b := in.browser()
		address, err := server.Consent(b.begin(in.invite(connection)), procoretest.DefaultUser().Login, true)
		in.must(err)
		if p := b.open(http.MethodGet, address); p.status != http.StatusSeeOther {
			t.Fatalf("the callback answers %d: %s", p.status, p.body)
		}
		in.deliver()
	}
	return in
}

// tally counts what became of a reader's requests.
type tally struct {
	OK     int64 `json:"ok"`
	Failed int64 `json:"failed"`
	Why    any   `json:"why"` // of the last failure
}

// hammer runs all readers through the rotations and reports.
func (in *installation) hammer() {
	in.t.Helper()
	const pause = 400 * time.Millisecond // between two requests of a worker
	ctx, stop := context.WithCancel(in.t.Context())
	defer stop()
	results := map[string]*tally{}
	var running sync.WaitGroup
	reader := func(name string, read func(context.Context) tally) {
		result := &tally{}
		results[name] = result
		running.Go(func() { *result = read(ctx) })
	}
	reader("Go", func(ctx context.Context) tally { return crowd(ctx, readConnections, readersEach, pause, in.careful) })
	reader("Go, naive", func(ctx context.Context) tally { return crowd(ctx, readConnections, 1, pause, in.naive) })
	for _, program := range otherReaders(in.t) {
		reader(program.language, func(ctx context.Context) tally {
			return program.hammer(ctx, in.readerEnv(program.language), in.env["TOKENTURN_SECRET_PREFIX"], readConnections,
				pause, &in.logs)
		})
	}

	_, mark := in.cloud.log(0)
	began := time.Now()
	slowest := in.rotateAll()
	took := time.Since(began)
	stop()
	running.Wait()

	reads := map[string]int{}
	calls, _ := in.cloud.log(mark)
	for _, c := range calls {
		if strings.HasPrefix(c.Who, keyOfReader) && c.Op == "GetSecretValue" {
			reads[c.Who]++
		}
	}
	var refused int64
	passed, _ := in.tap.since(0)
	for _, c := range passed {
		if c.Name == "GET /rest/v1.0/me" && c.Status == http.StatusUnauthorized {
			refused++
		}
	}
	naive := results["Go, naive"]
	in.t.Logf("%d rotations of %d connections in %v, the slowest took %v; 401s met by the careful readers: %d",
		rotationsEach*len(readConnections), len(readConnections), took.Round(time.Second), slowest.Round(time.Millisecond),
		refused-naive.Failed)
	for name, result := range results {
		in.t.Logf("%-10s %6d requests, failed for good: %d; %d reads of secrets", name, result.OK+result.Failed,
			result.Failed, reads[keyOf(name)])
		switch {
		case name == "Go, naive":
			if result.Failed == 0 {
				in.t.Errorf("the naive reader met no dead token, so this test shows nothing")
			}
		case result.Failed != 0 || result.OK < rotationsEach:
			in.t.Errorf("%s: %d requests failed and %d succeeded; the last failure: %v", name, result.Failed, result.OK,
				result.Why)
		}
	}
	if slowest > 5*time.Second {
		in.t.Logf("a rotation took %v: readers wait five seconds for a token to be published, "+
			"so failures may be this machine's", slowest)
	}
	if refused <= naive.Failed {
		in.t.Error("the careful readers met no dead token, so this test shows nothing")
	}
	in.keepsLogsClean()
}

// rotateAll rotates every connection, each at its own pace, and returns how long the slowest
// rotation took. What a run could not do, because a peer was too slow for it, the next one does.
func (in *installation) rotateAll() time.Duration {
	in.t.Helper()
	var slowest atomic.Int64
	var all sync.WaitGroup
	for _, connection := range readConnections {
		all.Go(func() {
			for done := 0; done < rotationsEach; {
				started := time.Now()
				switch outcome := in.try(`{"op":"rotate","connection":"` + connection + `"}`).outcome(connection); outcome {
				case "rotated", "recovered":
					done++
				case "busy", "deferred", "failed", "unknown", "published", "fresh":
				default:
					in.t.Errorf("%s: %q instead of rotated", connection, outcome)
					return
				}
				took := time.Since(started)
				slowest.Store(max(slowest.Load(), int64(took)))
				// A request is repeated once, so the new token must live as long as it takes readers to
				// find it and use it, however slow the machine is: the one in bash, which starts the AWS
				// CLI for each look, needs some two seconds. In production it lives for an hour.
				time.Sleep(max(4*time.Second, 3*took))
			}
		})
	}
	all.Wait()
	return time.Duration(slowest.Load())
}

// keepsLogsClean insists that no reader wrote a token anywhere.
func (in *installation) keepsLogsClean() {
	in.t.Helper()
	for _, connection := range readConnections {
		in.canary.add("access token", in.read(connection).AccessToken)
	}
	for _, found := range in.canary.in(in.logs.String()) {
		in.t.Errorf("logs: contain a %s", found)
	}
}

// keyOfReader begins the access keys of readers, which tell them apart in moto's log.
const keyOfReader = "AKIAREADER"

func keyOf(language string) string {
	return keyOfReader + strings.ToUpper(strings.NewReplacer(",", "", " ", "").Replace(language))
}

func (in *installation) secretsOf(language string) *secretsmanager.Client {
	return secretsmanager.NewFromConfig(aws.Config{Region: "us-east-1", BaseEndpoint: &in.cloud.url,
		Credentials: credentials.NewStaticCredentialsProvider(keyOf(language), "test", "")})
}

const readersEach = 4 // goroutines or threads of one language for one connection

// crowd lets several workers make requests for each connection until ctx ends.
func crowd(ctx context.Context, connections []string, each int, pause time.Duration,
	worker func(connection string) func() (int, error)) tally {
	var ok, failed atomic.Int64
	var why atomic.Value
	var workers sync.WaitGroup
	for _, connection := range connections {
		request := worker(connection)
		for range each {
			workers.Go(func() {
				for ctx.Err() == nil {
					if status, err := request(); err == nil && status == http.StatusOK {
						ok.Add(1)
					} else {
						failed.Add(1)
						why.Store(fmt.Sprint(status, err))
					}
					time.Sleep(pause)
				}
			})
		}
	}
	workers.Wait()
	return tally{ok.Load(), failed.Load(), why.Load()}
}

func (in *installation) careful(connection string) func() (int, error) {
	return requests(tokensource.New(in.secretsOf("Go"), connection,
		tokensource.WithPrefix(in.env["TOKENTURN_SECRET_PREFIX"])))
}

// requests makes requests with the token of source.
func requests(source *tokensource.Source, err error) func() (int, error) {
	if err != nil {
		return func() (int, error) { return 0, err }
	}
	client := source.Client(context.Background())
	return func() (int, error) {
		document, err := source.Document(context.Background())
		if err != nil {
			return 0, err
		}
		return status(client.Get(document.APIURL + "/rest/v1.0/me"))
	}
}

// naive keeps a token until it expires and takes a 401 as it comes.
func (in *installation) naive(connection string) func() (int, error) {
	client, id := in.secretsOf("Go, naive"), in.secretName(connection)
	var known token.Document
	return func() (int, error) {
		if time.Now().After(known.ExpiresAt) {
			out, err := client.GetSecretValue(context.Background(), &secretsmanager.GetSecretValueInput{SecretId: &id})
			if err != nil {
				return 0, err
			}
			if known, err = token.ParseDocument(token.NewSecret(*out.SecretString)); err != nil {
				return 0, err
			}
		}
		request, err := http.NewRequest(http.MethodGet, known.APIURL+"/rest/v1.0/me", nil)
		if err != nil {
			return 0, err
		}
		request.Header.Set("Authorization", "Bearer "+known.AccessToken.Reveal())
		return status(http.DefaultClient.Do(request))
	}
}

func status(answer *http.Response, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}
