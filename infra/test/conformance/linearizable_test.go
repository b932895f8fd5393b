//go:build conformance

package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/infra/test/lambdaruntime"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
)

// hasty are settings under which a killed attempt is looked into after eight seconds, and a
// token of ten seconds is due after five.
var hasty = map[string]string{
	"TOKENTURN_CADENCE":        "1s",
	"TOKENTURN_REDEEM_TIMEOUT": "1s",
	"TOKENTURN_LEASE":          "7s",
	"TOKENTURN_QUIET":          "1s",
	"TOKENTURN_REDEEM_RATE":    "50",
}

// Half of the connections have a server that keeps the old pair until the new one is used. At
// the strict one a lost answer ends the connection, until a person consents again.
var (
	stressed = []string{"peer/a", "peer/b", "peer/c", "peer/d", "peer/e",
		"strict/a", "strict/b", "strict/c", "strict/d", "strict/e"}
	personalities = map[string][]procoretest.Option{
		environment: {procoretest.With(procoretest.OldLivesUntilFirstUse)},
		"strict":    nil,
	}
)

const (
	workers     = 20 // processes of the rotate function
	opsEach     = 5  // events that each of them handles before all sweep at once
	keyOfWorker = "AKIAWORKER"
	stressLife  = 10 * time.Second
)

// TestHistoriesAreLinearizable lets twenty processes of the rotate function rotate ten
// connections at once, kills some of them, loses calls and answers, and notes when each of
// their operations, and of all readers, began and ended. The histories must be ones that the
// models allow: see histories_model_test.go. The speed of this machine decides only how long
// it takes until there is enough of a history.
func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	s := newStress(t)
	for _, connection := range stressed {
		if !s.consent(connection) {
			t.Fatalf("%s cannot be connected", connection)
		}
	}
	stopReading := s.readAll()
	s.disturb()
	// A secret takes 99 versions a day: ten connections are far from that.
	const most = 100
	for round := 0; !s.figures().enough(); round++ {
		if round == most {
			t.Fatalf("after %d rounds the history still has only %+v", most, s.figures())
		}
		s.atOnce(opsEach, anyEvent)
		s.atOnce(1, func() string { return scheduled })
		s.consentAgain()
		s.deliver()
	}
	s.calm()
	s.settle()
	stopReading()
	s.report()
	functions := s.traffic()
	s.holds("label", labelModel, s.labels(functions.moves))
	s.holds("token source", sourceModel, s.sources)
	s.holds("refresh token", tokenModel, functions.tokens)
}

// stress is an installation under load, and what was noted of it.
type stress struct {
	*installation
	began   time.Time
	servers map[string]*procoretest.Server // by environment
	workers []*worker
	readers int
	killing sync.WaitGroup

	mu       sync.Mutex
	reads    map[string][]porcupine.Operation // of AWSCURRENT, by connection
	sources  map[string][]porcupine.Operation // by token source
	outcomes map[string]int
	statuses map[int]int // of requests to the API
	kills    int
	consents int // that followed a loss
}

// worker is one process of the rotate function at a time, with an access key of its own.
type worker struct {
	function *lambdaruntime.Function
	events   []event
}

// event is one invocation.
type event struct {
	began, ended time.Time
	died         bool
}

func newStress(t *testing.T) *stress {
	t.Helper()
	s := &stress{began: time.Now(), servers: map[string]*procoretest.Server{},
		reads: map[string][]porcupine.Operation{}, sources: map[string][]porcupine.Operation{},
		outcomes: map[string]int{}, statuses: map[int]int{}}
	s.installation = install(t, startCloud(t), s.standIn(t, environment), "histories", hasty)
	strict := s.standIn(t, "strict")
	s.applicationOf("strict", strict, s.tap.listen(t, "login", strict.url))
	for n := range workers {
		number := fmt.Sprintf("%02d", n)
		s.workers = append(s.workers, &worker{
			function: s.function(buildRotate, "rotate-"+number, keyOfWorker+number, time.Minute)})
	}
	return s
}

// standIn is the server of one environment.
func (s *stress) standIn(t *testing.T, environment string) *provider {
	server := procoretest.New(append(personalities[environment], procoretest.WithLifetime(stressLife))...)
	t.Cleanup(server.Close)
	s.servers[environment] = server
	app := server.NewApp(publicURL + "/callback/" + environment)
	return &provider{t: t, url: server.URL, lifetime: stressLife,
		clientID: app.ClientID, clientSecret: app.ClientSecret.Reveal()}
}

// consent is a person who connects a connection, for the first time or again.
func (s *stress) consent(connection string) (connected bool) {
	s.t.Helper()
	b := s.browser()
	environment, _, _ := strings.Cut(connection, "/")
	address, err := s.servers[environment].Consent(b.begin(s.invite(connection)), procoretest.DefaultUser().Login, true)
	s.must(err)
	connected = path(b.open(http.MethodGet, address).location) == "/connected"
	s.deliver()
	return connected
}

// consentAgain connects what needs it. The answer to a code may be lost as well; then the
// person comes again the next time.
func (s *stress) consentAgain() {
	s.t.Helper()
	var listed []struct {
		Connection string `json:"connection"`
		Status     string `json:"status"`
	}
	out := s.operate("connection", "list")
	if err := json.Unmarshal(out, &listed); err != nil || len(listed) != len(stressed) {
		s.t.Fatalf("connection list answers %s (%v), want %d connections", out, err, len(stressed))
	}
	for _, c := range listed {
		if c.Status == "needs_consent" && s.consent(c.Connection) {
			s.consents++
		}
	}
}

// anyEvent is mostly a forced rotation.
func anyEvent() string {
	connection := stressed[rand.IntN(len(stressed))]
	switch rand.IntN(10) {
	case 0:
		return scheduled
	case 1:
		return `{"op":"ensure","connection":"` + connection + `","min_ttl_seconds":4}`
	case 2:
		return `{"op":"publish","connection":"` + connection + `"}`
	}
	return `{"op":"rotate","connection":"` + connection + `"}`
}

// atOnce lets all workers handle so many events each, beginning at the same moment.
func (s *stress) atOnce(each int, next func() string) {
	s.t.Helper()
	start := make(chan struct{})
	var running sync.WaitGroup
	for _, w := range s.workers {
		running.Go(func() {
			<-start
			for range each {
				s.handle(w, next())
			}
		})
	}
	close(start)
	running.Wait()
}

// handle hands one event to a worker, which may be killed before it answers.
func (s *stress) handle(w *worker, what string) {
	e := event{began: time.Now()}
	answer, err := w.function.Invoke(s.t.Context(), []byte(what))
	failure := lambdaruntime.FailureOf(err)
	e.ended, e.died = time.Now(), failure != "" && failure != lambdaruntime.Reported
	w.events = append(w.events, e)
	var r report
	if err == nil {
		err = json.Unmarshal(answer, &r)
	}
	if err != nil && failure == "" {
		s.t.Errorf("rotate with %s answers %s: %v", what, answer, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if failure != "" {
		s.outcomes["function "+string(failure)]++
	}
	for outcome, n := range r.Outcomes {
		s.outcomes[outcome] += n
	}
}

// disturb makes trouble from now on. One call in two hundred is lost by moto, and as many are
// throttled. The wiretap cuts off one in ninety of the workers' calls to AWS, before or after
// moto sees it, and kills the worker in one of 331; of the presentations, one in twelve is not
// answered and one in forty-one does not arrive. The servers have a few bad moments as well.
func (s *stress) disturb() {
	s.cloud.faults(0.005, 0.005)
	calls, posts := 0, 0
	s.tap.decide(func(c call) fate {
		w := s.worker(c.Who)
		switch {
		case w != nil:
			calls++
			if calls%331 == 0 {
				s.kill(w)
			} else if calls%90 == 0 {
				return []fate{withheld, unanswered}[calls/90%2]
			}
		case c.Name == "POST /oauth/token":
			posts++
			if posts%41 == 0 {
				return withheld
			} else if posts%12 == 0 {
				return unanswered
			}
		}
		return passed
	})
	for _, server := range s.servers {
		for range 5 {
			server.Script(make([]procoretest.Answer, 9)...)
			server.Script(procoretest.TooManyRequests(time.Second))
			server.Script(make([]procoretest.Answer, 9)...)
			server.Script(procoretest.Unavailable(http.StatusServiceUnavailable))
		}
	}
}

// kill ends a worker's process while its call goes on.
func (s *stress) kill(w *worker) {
	s.killing.Go(w.function.Kill)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kills++
}

// worker is the one with that access key; nil if it is nobody's.
func (s *stress) worker(who string) *worker {
	number, ok := strings.CutPrefix(who, keyOfWorker)
	if n, err := strconv.Atoi(number); ok && err == nil {
		return s.workers[n]
	}
	return nil
}

// calm ends the trouble.
func (s *stress) calm() {
	s.tap.decide(nil)
	s.killing.Wait()
	s.cloud.faults(0, 0)
}

// settle lets every connection end with a pair that its server accepts.
func (s *stress) settle() {
	s.t.Helper()
	for _, server := range s.servers {
		server.SetLifetime(10 * time.Minute)
	}
	unsettled := slices.Clone(stressed)
	for deadline := time.Now().Add(5 * time.Minute); len(unsettled) > 0; time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%v do not settle; the last answers:\n%s", unsettled, s.answers.tail(2000))
		}
		s.consentAgain()
		unsettled = slices.DeleteFunc(unsettled, func(connection string) bool {
			return s.force(connection).outcome(connection) == "rotated" && s.use(s.read(connection)) == http.StatusOK
		})
	}
}

// figures say how much of a history there is.
type figures struct {
	rotations, reads, kills int
	unanswered              int // presentations
	consents                int // that followed a loss
}

// enough is what a history must have to show something.
func (f figures) enough() bool {
	return f.rotations >= 100 && f.reads >= 3000 && f.kills >= 10 && f.unanswered >= 5 && f.consents >= 2
}

func (s *stress) figures() (f figures) {
	calls, _ := s.tap.since(0)
	for _, c := range calls {
		switch {
		case c.Name == "UpdateSecretVersionStage" && c.Status == http.StatusOK:
			f.rotations++
		case c.Name == "POST /oauth/token" && c.Fate == unanswered:
			f.unanswered++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.kills, f.consents = s.kills, s.consents
	for _, reads := range s.reads {
		f.reads += len(reads)
	}
	return f
}

func (s *stress) report() {
	s.t.Helper()
	f := s.figures()
	s.t.Logf("%v: %d rotations of %d connections by %d processes, of which %d were killed; %d presentations "+
		"without an answer and %d consents that followed; %d reads of secrets", time.Since(s.began).Round(time.Second),
		f.rotations, len(stressed), workers, f.kills, f.unanswered, f.consents, f.reads)
	s.t.Logf("outcomes: %v; the API answered readers with %v", s.outcomes, s.statuses)
}

// labels are the histories of AWSCURRENT: how functions moved it and what readers saw.
func (s *stress) labels(moves map[string][]porcupine.Operation) map[string][]porcupine.Operation {
	labels := map[string][]porcupine.Operation{}
	for connection, reads := range s.reads {
		labels[connection] = slices.Concat(moves[connection], reads)
	}
	return labels
}

// holds checks histories of one kind. Of the shortest that is wrong it leaves a picture.
func (s *stress) holds(kind string, model porcupine.Model, histories map[string][]porcupine.Operation) {
	s.t.Helper()
	began, operations, endless := time.Now(), 0, 0
	var wrong []string
	for name, history := range histories {
		operations += len(history)
		for _, op := range history {
			if op.Return == open {
				endless++
			}
		}
		if !porcupine.CheckOperations(model, history) {
			wrong = append(wrong, name)
		}
	}
	s.t.Logf("%s: %d histories of %d operations, %d of which have no known end, checked in %v",
		kind, len(histories), operations, endless, time.Since(began).Round(time.Millisecond))
	if len(wrong) == 0 {
		return
	}
	shortest := slices.MinFunc(wrong, func(a, b string) int { return len(histories[a]) - len(histories[b]) })
	history := reduce(model, histories[shortest])
	_, info := porcupine.CheckOperationsVerbose(model, history, 0)
	s.t.Errorf("%d of %d histories of a %s are not linearizable, such as that of %s: %s; %s",
		len(wrong), len(histories), kind, shortest, explain(history, info), picture(model, info, kind))
}

// picture draws a history into a directory that stays, and says where.
func picture(model porcupine.Model, info porcupine.LinearizationInfo, name string) string {
	directory, err := os.MkdirTemp("", "tokenturn-history-")
	if err != nil {
		return err.Error()
	}
	file := filepath.Join(directory, strings.ReplaceAll(name, " ", "-")+".html")
	if err := porcupine.VisualizePath(model, info, file); err != nil {
		return err.Error()
	}
	return "see " + file
}

// readAll starts the readers of every connection: two that ask for AWSCURRENT, and a program
// with parts that share a token source.
func (s *stress) readAll() (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	repeat := func(read func()) {
		running.Go(func() {
			for ctx.Err() == nil {
				read()
				time.Sleep(250 * time.Millisecond)
			}
		})
	}
	for _, connection := range stressed {
		in := &secretsmanager.GetSecretValueInput{SecretId: aws.String(s.secretName(connection))}
		for range 2 {
			r := s.reader(connection)
			repeat(func() { _, _ = r.GetSecretValue(ctx, in) })
		}
		r := s.reader(connection)
		r.shared = "of " + connection
		source, err := tokensource.New(r, connection,
			tokensource.WithPrefix(s.env["TOKENTURN_SECRET_PREFIX"]), tokensource.WithTTL(time.Second))
		s.must(err)
		client := source.Client(ctx)
		for range 2 {
			repeat(func() { r.document(ctx, source) })
		}
		repeat(func() { s.request(ctx, client, source) })
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// reader notes what it reads, for itself or for a token source.
type reader struct {
	stress     *stress
	connection string
	client     int
	shared     string // name of the token source; empty: none
	secrets    *secretsmanager.Client
}

var _ tokensource.SecretReader = (*reader)(nil)

func (s *stress) reader(connection string) *reader {
	s.readers++
	return &reader{stress: s, connection: connection, client: workers + s.readers, secrets: s.secretsOf("Go")}
}

// GetSecretValue implements tokensource.SecretReader. What ends in an error has read nothing.
func (r *reader) GetSecretValue(ctx context.Context, in *secretsmanager.GetSecretValueInput,
	options ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	s, began := r.stress, time.Now()
	out, err := r.secrets.GetSecretValue(ctx, in, options...)
	ended := time.Now()
	if err != nil {
		return out, err
	}
	seen := readOf(r.connection, aws.ToString(out.VersionId), aws.ToString(out.SecretString))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads[r.connection] = append(s.reads[r.connection], operation(r.client, seen, done, s.at(began), s.at(ended)))
	if r.shared != "" {
		s.sources[r.shared] = append(s.sources[r.shared], operation(0, look{seen.Seen}, done, s.at(began), s.at(ended)))
	}
	return out, err
}

// document asks the token source as a program does. It has none that lives while an attempt is
// looked into.
func (r *reader) document(ctx context.Context, source *tokensource.Source) {
	s, began := r.stress, time.Now()
	d, err := source.Document(ctx)
	ended := time.Now()
	if err != nil {
		return
	}
	given := show{place{"", d.Epoch, d.Generation}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sources[r.shared] = append(s.sources[r.shared], operation(1, given, done, s.at(began), s.at(ended)))
}

// request uses the token, which on a server with overlap ends the pair before it.
func (s *stress) request(ctx context.Context, client *http.Client, source *tokensource.Source) {
	d, err := source.Document(ctx)
	if err != nil {
		return
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.APIURL+"/rest/v1.0/me", nil)
	if err != nil {
		s.t.Error(err)
		return
	}
	answer, err := client.Do(request)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statuses[answer.StatusCode]++
}

// at is a moment as histories have it.
func (s *stress) at(moment time.Time) int64 { return int64(moment.Sub(s.began)) }
