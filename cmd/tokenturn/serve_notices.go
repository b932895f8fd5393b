package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// noticesPath is the path at which `serve` shows notices.
const noticesPath = "/notices"

// mostNotices is the number of notices kept; older ones are in the log.
const mostNotices = 100

//go:embed serve_notices.html
var noticesPage string

var noticesTemplate = template.Must(template.New("notices").Funcs(template.FuncMap{
	"stamp": stamp, "words": func(kind string) string { return strings.ReplaceAll(kind, "_", " ") },
}).Parse(noticesPage))

// noticesStyle is the hash of the page's style sheet, for the Content-Security-Policy.
var noticesStyle = func() string {
	_, rest, _ := strings.Cut(noticesPage, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}()

// noticeBoard keeps the notices of this process. Its page shows them, and the connections
// that need a person now, to browsers on this machine.
type noticeBoard struct {
	ledger ledger
	host   string // of the public URL; requests for another host are refused

	mu      sync.Mutex
	notices []rotation.Notice // newest first
}

var _ rotation.Notifier = (*noticeBoard)(nil)

// Notify implements rotation.Notifier.
func (b *noticeBoard) Notify(_ context.Context, n rotation.Notice) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notices = append([]rotation.Notice{n}, b.notices[:min(len(b.notices), mostNotices-1)]...)
	return nil
}

// wrap serves the page, and leaves every other path to next.
func (b *noticeBoard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == noticesPath {
			b.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// attention is a connection that needs a person now.
type attention struct{ Connection, State, Do string }

func (b *noticeBoard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Pattern = "GET " + noticesPath
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src "+noticesStyle+"; base-uri 'none'; "+
		"form-action 'none'; frame-ancestors 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	switch {
	case r.Host != b.host: // DNS rebinding: a foreign name that leads to this machine
		http.Error(w, "this page is at http://"+b.host+noticesPath, http.StatusMisdirectedRequest)
		return
	case !isLocal(r): // --addr may listen on the network, and anyone with a link can use it
		http.Error(w, "this page is only for browsers on the same machine", http.StatusForbidden)
		return
	case r.Method != http.MethodGet:
		header.Set("Allow", http.MethodGet)
		http.Error(w, "this page is read-only", http.StatusMethodNotAllowed)
		return
	}
	records, err := b.ledger.List(r.Context())
	if err != nil {
		http.Error(w, "listing the connections: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	b.mu.Lock()
	shown := struct {
		Now     []attention
		Notices []rotation.Notice
		At      time.Time
	}{needAttention(records), slices.Clone(b.notices), time.Now()}
	b.mu.Unlock()
	var page bytes.Buffer
	if err := noticesTemplate.Execute(&page, shown); err != nil {
		panic(err) // a fault in an embedded page
	}
	header.Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page.Bytes())
}

// isLocal reports whether a request comes from this machine.
func isLocal(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback()
}

func needAttention(records []rotation.Record) (needed []attention) {
	for _, r := range records {
		switch f := r.Failure(); {
		case r.Status == rotation.NeedsConsent:
			needed = append(needed, attention{r.Connection.String(), "needs consent",
				fmt.Sprintf("tokenturn connection invite %s", r.Connection)})
		case r.Quarantined:
			needed = append(needed, attention{r.Connection.String(), "is quarantined",
				fmt.Sprintf("tokenturn connection show %s", r.Connection)})
		case f != nil && f.Class == "config":
			needed = append(needed, attention{r.Connection.String(), "is misconfigured", f.Detail})
		}
	}
	return needed
}
