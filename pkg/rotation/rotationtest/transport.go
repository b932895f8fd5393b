package rotationtest

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// Twice delivers every request twice and returns the second answer, as if a retry had hidden
// that the first delivery took effect.
func Twice(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(request *http.Request, body []byte) (*http.Response, error) {
		first, err := deliver(next, request, body)
		if err != nil {
			return nil, err
		}
		discard(first)
		return deliver(next, request, body)
	})
}

// LosingFirst delivers every request, but answers the first delivery of each different body
// with a connection reset. A client that tries again gets the answer.
func LosingFirst(next http.RoundTripper) http.RoundTripper {
	var mu sync.Mutex
	lost := map[[32]byte]bool{}
	return roundTrip(func(request *http.Request, body []byte) (*http.Response, error) {
		response, err := deliver(next, request, body)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(append([]byte(request.Header.Get("X-Amz-Target")+request.URL.String()), body...))
		mu.Lock()
		defer mu.Unlock()
		if lost[sum] = !lost[sum]; !lost[sum] {
			return response, nil
		}
		discard(response)
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	})
}

// Repeaters are transports that make a client deliver twice.
var Repeaters = map[string]func(http.RoundTripper) http.RoundTripper{
	"every request is delivered twice": Twice,
	"every first answer is lost":       LosingFirst,
}

// roundTrip is a transport that gets the request and its body.
type roundTrip func(request *http.Request, body []byte) (*http.Response, error)

func (f roundTrip) RoundTrip(request *http.Request) (*http.Response, error) {
	var body []byte
	if request.Body != nil {
		defer request.Body.Close()
		var err error
		if body, err = io.ReadAll(request.Body); err != nil {
			return nil, err
		}
	}
	return f(request, body)
}

func deliver(next http.RoundTripper, request *http.Request, body []byte) (*http.Response, error) {
	copied := request.Clone(request.Context())
	if request.Body != nil {
		copied.Body = io.NopCloser(bytes.NewReader(body))
	}
	return next.RoundTrip(copied)
}

func discard(response *http.Response) {
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
}
