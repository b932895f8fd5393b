package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestTheLatestNoticesAreKept(t *testing.T) {
	b := &noticeBoard{}
	bolt := token.Connection{Environment: "sandbox", Name: "bolt"}
	for range 2 * mostNotices {
		_ = b.Notify(t.Context(), rotation.Notice{Kind: rotation.NoticeUnknown, Connection: bolt})
	}
	_ = b.Notify(t.Context(), rotation.Notice{Kind: rotation.NoticeRecovered, Connection: bolt})
	kept := b.newestFirst()
	if len(kept) != mostNotices || kept[0].Kind != rotation.NoticeRecovered {
		t.Errorf("%d notices are kept, the newest is %s", len(kept), kept[0].Kind)
	}
	kept[0].Kind = "changed"
	if b.newestFirst()[0].Kind != rotation.NoticeRecovered {
		t.Error("a reader can change what is kept")
	}
	_ = b.Notify(t.Context(), rotation.Notice{Kind: rotation.NoticeClock, At: time.Now().Add(time.Hour)})
	if at := b.newestFirst()[0].At; at.After(time.Now()) {
		t.Errorf("a notice is of %v", at)
	}
}

// TestServeOffersTheConsoleToThisMachineOnly: from elsewhere, only the consent pages work.
func TestServeOffersTheConsoleToThisMachineOnly(t *testing.T) {
	c := &cli{store: "embedded", data: t.TempDir()}
	in, err := c.openEmbedded(t.Context(), c.data, c.logger(0))
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	in.publicURL = "http://localhost:8080"
	s := c.system(in, time.Hour)
	rotator, err := in.rotator()
	if err != nil {
		t.Fatal(err)
	}
	callback, err := s.callbackHandler()
	if err != nil {
		t.Fatal(err)
	}
	pages, err := s.console(rotator, &noticeBoard{})
	if err != nil {
		t.Fatal(err)
	}
	served := pages.Wrap(callback)
	for request, want := range map[[4]string]int{
		{"GET", "localhost:8080", "/", "127.0.0.1:1"}:                 http.StatusOK,
		{"GET", "localhost:8080", "/", "[::1]:1"}:                     http.StatusOK,
		{"GET", "localhost:8080", "/", "192.0.2.1:1"}:                 http.StatusForbidden,
		{"GET", "evil.example:8080", "/", "127.0.0.1:1"}:              http.StatusMisdirectedRequest,
		{"GET", "localhost:8080", "/notices", "127.0.0.1:1"}:          http.StatusSeeOther,
		{"POST", "localhost:8080", "/notices", "127.0.0.1:1"}:         http.StatusMethodNotAllowed,
		{"GET", "localhost:8080", "/notices", "192.0.2.1:1"}:          http.StatusForbidden,
		{"GET", "evil.example:8080", "/notices", "127.0.0.1:1"}:       http.StatusMisdirectedRequest,
		{"GET", "localhost:8080", "/events", "192.0.2.1:1"}:           http.StatusForbidden,
		{"GET", "localhost:8080", "/connections/a/b", "192.0.2.1:1"}:  http.StatusForbidden,
		{"GET", "localhost:8080", "/elsewhere", "127.0.0.1:1"}:        http.StatusNotFound,
		{"GET", "localhost:8080", "/healthz", "192.0.2.1:1"}:          http.StatusOK,
		{"GET", "localhost:8080", "/not-connected", "192.0.2.1:1"}:    http.StatusOK,
		{"GET", "localhost:8080", "/callback/sandbox", "192.0.2.1:1"}: http.StatusBadRequest,
		{"GET", "localhost:8080", "/connect/unknown", "192.0.2.1:1"}:  http.StatusNotFound,
	} {
		answer, r := httptest.NewRecorder(), httptest.NewRequest(request[0], "http://"+request[1]+request[2], nil)
		r.RemoteAddr = request[3]
		if served.ServeHTTP(answer, r); answer.Code != want {
			t.Errorf("%v: %d, want %d", request, answer.Code, want)
		}
	}
}

func TestThisCommandNamesTheInstallation(t *testing.T) {
	for want, c := range map[string]*cli{
		"tokenturn":               {store: "embedded"},
		"tokenturn --data '/a b'": {store: "embedded", data: "/a b"},
		"tokenturn --store aws":   {store: "aws"},
		"tokenturn --stack blue":  {store: "aws", stack: "blue"},
		"tokenturn --use blue":    {store: "aws", use: "blue"},
		"tokenturn --stack blue --region us-east-1 --profile ops": {store: "aws", stack: "blue", region: "us-east-1",
			awsProfile: "ops"},
	} {
		if got := c.thisCommand(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
