package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// narrator writes one line for each thing that happens, with the time before it.
type narrator struct {
	mu   sync.Mutex
	out  io.Writer
	last map[token.Connection]string // what the last report said
}

func (n *narrator) line(at time.Time, format string, args ...any) {
	text := fmt.Sprintf("%s  %s\n", clock(at), oneLine(fmt.Sprintf(format, args...)))
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _ = io.WriteString(n.out, text) // one write, so that lines of several processes do not mix
}

// report narrates what a request did, unless nothing has changed.
func (n *narrator) report(report rotation.Report) {
	for _, r := range report.Connections {
		if text := sentence(r); text != "" && n.isNew(r.Connection, text) {
			n.line(time.Now(), "%s: %s", r.Connection, text)
		}
	}
}

// isNew reports whether the last report about the connection said something else.
func (n *narrator) isNew(c token.Connection, text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last[c] == text {
		return false
	}
	if n.last == nil {
		n.last = map[token.Connection]string{}
	}
	n.last[c] = text
	return true
}

// sentence says what a run did for a connection; empty if nothing has changed, or if a
// notice or the log says it.
func sentence(r rotation.ConnectionReport) string {
	valid, again := "", ""
	if !r.ExpiresAt.IsZero() {
		valid = "; its access token is valid until " + clock(r.ExpiresAt)
	}
	if !r.RetryAt.IsZero() {
		again = "; next try at " + clock(r.RetryAt)
	}
	switch r.Outcome {
	case rotation.Rotated:
		return fmt.Sprintf("rotated: generation %s is published%s", generation(r.Epoch, r.Generation), valid)
	case rotation.Published:
		return fmt.Sprintf("published: generation %s%s", generation(r.Epoch, r.Generation), valid)
	case rotation.Recovered:
		return fmt.Sprintf("recovered: generation %s is published%s", generation(r.Epoch, r.Generation), valid)
	case rotation.Busy:
		if r.Refreshing != nil {
			return r.Refreshing.Describe(clock)
		}
		return "the run that got the new token pair publishes it" + again
	case rotation.Unknown:
		return "the answer is not known, so nothing is presented for now" + again
	case rotation.Deferred:
		if r.Detail != "" { // otherwise it came too early, and comes again
			return "waits: " + r.Detail + again
		}
	case rotation.ConfigError:
		return "configuration error: " + r.Detail + again
	case rotation.ConsentNeeded:
		return "needs a person's consent"
	case rotation.InQuarantine:
		return "quarantined: a person must decide about an answer of the server"
	case rotation.Failed:
		return "failed: " + r.Detail
	}
	return ""
}

// narration is a slog.Handler that writes records as sentences. It leaves out what reports
// say, and the access log.
type narration struct {
	level    slog.Level
	narrator *narrator
	command  string // that a person can run
	attrs    []slog.Attr
}

var _ slog.Handler = narration{}

// Enabled implements slog.Handler.
func (h narration) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// Handle implements slog.Handler.
func (h narration) Handle(_ context.Context, r slog.Record) error {
	attrs := map[string]string{}
	var rest []string
	add := func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.String()
		if a.Key != "request_id" && a.Value.String() != "" {
			rest = append(rest, a.Key+": "+a.Value.String())
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	switch r.Message {
	case "connection handled", "request carried out", "request served":
		return nil
	case "notice":
		text := attrs["summary"]
		if strings.Contains(text, "the link in this notice") { // which no log contains
			text += fmt.Sprintf(" (The link is not shown here. Create another one in the console, or with "+
				"`%s connection invite %s`.)", h.command, attrs["about"])
		}
		h.narrator.line(r.Time, "%s: notice (%s): %s", attrs["about"], strings.ReplaceAll(attrs["kind"], "_", " "), text)
		return nil
	case "consent ended":
		problem := ""
		if attrs["error"] != "" {
			problem = ": " + attrs["error"]
		}
		h.narrator.line(r.Time, "%s: consent: %s%s", attrs["connection"], attrs["result"], problem)
		return nil
	}
	text := r.Message
	if len(rest) > 0 {
		text += " (" + strings.Join(rest, ", ") + ")"
	}
	if r.Level >= slog.LevelWarn {
		text = strings.ToLower(r.Level.String()) + ": " + text
	}
	h.narrator.line(r.Time, "%s", text)
	return nil
}

// WithAttrs implements slog.Handler.
func (h narration) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)
	return h
}

// WithGroup implements slog.Handler. No log of this program has groups.
func (h narration) WithGroup(string) slog.Handler { return h }
