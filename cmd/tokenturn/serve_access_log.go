package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"time"
)

// accessLog logs one line for each request with its route, but without its path, which may
// contain an invitation's secret, and without its query, headers and cookies.
func accessLog(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		r = r.WithContext(context.WithValue(r.Context(), requestID{}, rand.Text()))
		answer := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(answer, r)
		log.LogAttrs(r.Context(), slog.LevelInfo, "request served", slog.String("route", cmp.Or(r.Pattern, "none")),
			slog.Int("status", answer.status), slog.Int64("latency_ms", time.Since(began).Milliseconds()))
	})
}

// statusRecorder records the status.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (o *statusRecorder) WriteHeader(status int) {
	o.status = status
	o.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find what it controls.
func (o *statusRecorder) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// requestID is the key of a request's id in its context.
type requestID struct{}

// withRequestIDs adds the id of the request to every line about it.
func withRequestIDs(log *slog.Logger) *slog.Logger { return slog.New(withRequestID{log.Handler()}) }

type withRequestID struct{ slog.Handler }

func (h withRequestID) Handle(ctx context.Context, r slog.Record) error {
	if id, ok := ctx.Value(requestID{}).(string); ok {
		r.AddAttrs(slog.String("request_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h withRequestID) WithAttrs(attrs []slog.Attr) slog.Handler {
	return withRequestID{h.Handler.WithAttrs(attrs)}
}

func (h withRequestID) WithGroup(name string) slog.Handler {
	return withRequestID{h.Handler.WithGroup(name)}
}
