package traces_test

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/traces"
)

const (
	root   = "1-5759e988-bd862e3fe1be46a994272793"
	parent = "53995c3f42cd8ad8"
)

// daemon listens as the X-Ray daemon does.
func daemon(t *testing.T) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// received is what has arrived so far: over the loopback interface, what was sent is there.
func received(t *testing.T, conn *net.UDPConn) (documents []string) {
	t.Helper()
	packet := make([]byte, 64<<10)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(packet)
		if err != nil {
			return documents
		}
		documents = append(documents, string(packet[:n]))
	}
}

// event is one that calls KMS, which denies, and the token endpoint, which does not know the token.
type event func(ctx context.Context)

func (e event) Invoke(ctx context.Context, _ []byte) ([]byte, error) {
	e(ctx)
	return nil, nil
}

func invoke(t *testing.T, tracer *traces.Tracer, conn *net.UDPConn, header string) []string {
	t.Helper()
	cfg := awstest.Play(func(awstest.Call) (any, error) {
		return nil,
			awstest.Fault{Code: "AccessDeniedException"}
	}).Config()
	cfg.APIOptions = append(cfg.APIOptions, tracer.Calls)
	issuer := tracer.Issuer(&rotationtest.Issuer{Journal: &rotationtest.Journal{}})
	var h lambda.Handler = event(func(ctx context.Context) {
		_, _ = kms.NewFromConfig(cfg).GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: aws.String("alias/canary")})
		issuer.Redeem(context.WithoutCancel(ctx), rotationtest.Sandbox,
			rotation.Grant{RefreshToken: token.NewSecret("canary")})
		if early := received(t, conn); len(early) > 0 {
			t.Errorf("sent before the event has ended: %v", early)
		}
	})
	//lint:ignore SA1029 aws-lambda-go's own key
	ctx := context.WithValue(t.Context(), "x-amzn-trace-id", header)
	if _, err := tracer.Handler(h).Invoke(ctx, nil); err != nil {
		t.Fatal(err)
	}
	return received(t, conn)
}

func TestASampledEventIsTracedByNamesAlone(t *testing.T) {
	conn := daemon(t)
	tracer, err := traces.New(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	documents := invoke(t, tracer, conn, "Root="+root+";Parent="+parent+";Sampled=1;Lineage=1:2:3")
	if len(documents) != 2 {
		t.Fatalf("got %v", documents)
	}
	want := []string{"KMS", "redeem sandbox"}
	for n, document := range documents {
		preamble, body, _ := strings.Cut(document, "\n")
		var s map[string]any
		if err := json.Unmarshal([]byte(body), &s); err != nil || preamble != `{"format":"json","version":1}` {
			t.Fatalf("%s: %v", document, err)
		}
		if s["name"] != want[n] || s["trace_id"] != root || s["parent_id"] != parent || s["type"] != "subsegment" ||
			s["error"] != true || len(s["id"].(string)) != 16 {
			t.Errorf("got %s", body)
		}
		if start, end := s["start_time"].(float64), s["end_time"].(float64); end < start ||
			time.Since(time.UnixMicro(int64(start*1e6))) > time.Minute {
			t.Errorf("from %v to %v", start, end)
		}
		for _, harmful := range []string{"canary", "http", "Authorization", "alias", "login.example.com"} {
			if strings.Contains(document, harmful) {
				t.Errorf("%s is in %s", harmful, document)
			}
		}
	}
	if !strings.Contains(documents[0], `"aws":{"operation":"GenerateDataKey"}`) || !strings.Contains(documents[1],
		`"annotations":{"answer":"refused"}`) {
		t.Errorf("got %v", documents)
	}
}

func TestWhatIsNotSampledIsNotSent(t *testing.T) {
	conn := daemon(t)
	tracer, err := traces.New(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"", "nonsense", "Root=" + root + ";Parent=" + parent + ";Sampled=0", "Root=" + root +
		";Sampled=1"} {
		if documents := invoke(t, tracer, conn, header); len(documents) > 0 {
			t.Errorf("%q: %v", header, documents)
		}
	}
}

func TestWithoutADaemonNothingStandsInBetween(t *testing.T) {
	tracer, err := traces.New("")
	if err != nil || tracer != nil {
		t.Fatalf("%v, %v", tracer, err)
	}
	issuer := &rotationtest.Issuer{}
	var h lambda.Handler = event(func(context.Context) {})
	if _, same := tracer.Handler(h).(event); !same || tracer.Issuer(issuer) != rotation.Issuer(issuer) {
		t.Error("something stands in between")
	}
	if _, err := traces.New("no port"); err == nil {
		t.Error("an address without a port is accepted")
	}
}
