package main

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// fakeAWS answers what the command asks before it reads anything: CloudFormation, STS and
// an empty DynamoDB table; and secrets.
type fakeAWS struct {
	mu      sync.Mutex
	stacks  map[string]fakeStack
	secrets map[string]string
	refuse  string   // error code of every answer; empty: none
	asked   []string // with the access key id and the region
}

type fakeStack struct {
	status  string
	outputs map[string]string
}

// cmdAWS starts a fake AWS: aws start. It sets up a stack: aws stack NAME STATUS [FILE],
// with the outputs in FILE. It stores a secret: aws secret NAME FILE. It makes every call fail
// with a code: aws refuse CODE; or none: aws refuse.
func cmdAWS(ts *testscript.TestScript, _ bool, args []string) {
	w := envOf(ts)
	switch args[0] {
	case "start":
		w.aws = &fakeAWS{stacks: map[string]fakeStack{}, secrets: map[string]string{}}
		server := httptest.NewServer(w.aws)
		ts.Defer(server.Close)
		ts.Setenv("AWS_ENDPOINT_URL", server.URL)
		ts.Setenv("AWS_REGION", "eu-west-1")
		ts.Setenv("AWS_ACCESS_KEY_ID", "own")
		ts.Setenv("AWS_SECRET_ACCESS_KEY", "secret-access-key")
	case "stack":
		s := fakeStack{status: args[2], outputs: map[string]string{}}
		if len(args) > 3 {
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[3])), &s.outputs))
		}
		w.aws.mu.Lock()
		w.aws.stacks[args[1]] = s
		w.aws.mu.Unlock()
	case "secret":
		w.aws.mu.Lock()
		w.aws.secrets[args[1]] = ts.ReadFile(args[2])
		w.aws.mu.Unlock()
	case "refuse":
		w.aws.mu.Lock()
		w.aws.refuse = strings.Join(args[1:], "")
		w.aws.mu.Unlock()
	}
}

// cmdAsked wants the calls since it was last called: asked [OPERATION:KEY:REGION ...].
func cmdAsked(ts *testscript.TestScript, _ bool, args []string) {
	w := envOf(ts)
	w.aws.mu.Lock()
	defer w.aws.mu.Unlock()
	if got, want := strings.Join(w.aws.asked, " "), strings.Join(args, " "); got != want {
		ts.Fatalf("AWS was asked %q, want %q", got, want)
	}
	w.aws.asked = nil
}

func (f *fakeAWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/latest/") { // a metadata service without a role
		http.NotFound(w, r)
		return
	}
	_, operation, isJSON := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if !isJSON {
		operation = r.FormValue("Action")
	}
	_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	parts := append(strings.Split(credential, "/"), "", "", "")
	f.asked = append(f.asked, operation+":"+parts[0]+":"+parts[2])
	stack, known := f.stacks[r.FormValue("StackName")]
	switch {
	case f.refuse != "" && isJSON:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"__type":"com.amazonaws.example#%s","message":"canary"}`, f.refuse)
	case f.refuse != "":
		f.fail(w, f.refuse)
	case operation == "GetCallerIdentity":
		fmt.Fprint(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::111122223333:user/me</Arn>`+
			`</GetCallerIdentityResult></GetCallerIdentityResponse>`)
	case operation == "DescribeStacks" && !known:
		f.fail(w, "ValidationError")
	case operation == "DescribeStacks":
		fmt.Fprintf(w, `<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackStatus>%s</StackStatus><Outputs>`,
			stack.status)
		for name, value := range stack.outputs {
			fmt.Fprintf(w, `<member><OutputKey>%s</OutputKey><OutputValue>%s</OutputValue></member>`, name, value)
		}
		fmt.Fprint(w, `</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`)
	case operation == "GetSecretValue":
		f.secret(w, r)
	default:
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		const empty = `{"Items":[],"Count":0}`
		w.Header().Set("X-Amz-Crc32", fmt.Sprint(crc32.ChecksumIEEE([]byte(empty))))
		fmt.Fprint(w, empty)
	}
}

// secret answers GetSecretValue.
func (f *fakeAWS) secret(w http.ResponseWriter, r *http.Request) {
	var asked struct{ SecretId string }
	_ = json.NewDecoder(r.Body).Decode(&asked)
	value, known := f.secrets[asked.SecretId]
	if !known {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"__type":"ResourceNotFoundException"}`)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"SecretString": value, "VersionId": "v"})
}

func (f *fakeAWS) fail(w http.ResponseWriter, code string) {
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>canary</Message></Error>`+
		`</ErrorResponse>`, code)
}
