// Package procoretest is a stand-in for Procore's authorization server and the
// API calls that go with it, for tests and for trying tokenturn without an account. It keeps everything in
// memory.
//
// It is strict: single use of codes and refresh tokens, exact redirect URIs, S256
// only, no parameter twice. Its answers, in shape and order of checks, are those
// measured on Doorkeeper 5.5, which Procore's resemble; see package procore.
// Personality makes it behave like other servers, and Script alters its next
// answers. It counts every presentation of every code and refresh token, so a
// test can prove how often each was presented.
//
// It differs from Doorkeeper where that makes it a better test server: it asks for
// consent every time, an error page has status 400, a new access token gets the
// lifetime that is set now rather than its predecessor's, and parameters in
// the query of a POST are ignored.
package procoretest

import (
	"net"
	"net/http"
	"time"
)

// Server is a Handler that listens on a loopback address.
type Server struct {
	*Handler
	URL    string // "http://127.0.0.1:PORT": both login and API host
	server *http.Server
}

// New starts a server on a free loopback port. It panics if there is none. Close it.
func New(options ...Option) *Server {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic("procoretest: listening on a loopback port: " + err.Error())
	}
	handler := NewHandler(options...)
	s := &Server{
		Handler: handler,
		URL:     "http://" + listener.Addr().String(),
		server:  &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second},
	}
	go func() { _ = s.server.Serve(listener) }()
	return s
}

// Close stops listening and cuts every connection.
func (s *Server) Close() { _ = s.server.Close() }
