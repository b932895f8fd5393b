package procoretest

import (
	"net/http"
	"slices"
)

// Faults that last until they are ended. All are safe for concurrent use, also while
// requests are served, and apply to the requests that arrive from then on. See Script for
// single answers, and SetLifetime, RevokeAll, Register and Uninstall for other changes.

// SetPersonality replaces the personalities of the server. Pairs that are already issued
// keep their links: an old pair that waits for the first use of its successor still does.
func (h *Handler) SetPersonality(personalities ...Personality) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.personality = slices.Clone(personalities)
}

// TakeDown makes the server answer each request with status, such as 503, and without any
// effect, until BringUp. Its pages are down as well. Presentations are counted.
func (h *Handler) TakeDown(status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = status
}

// BringUp ends TakeDown.
func (h *Handler) BringUp() { h.TakeDown(0) }

// Unscript removes the answers of Script that no request has used.
func (h *Handler) Unscript() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.script = nil
}

// Changed returns a channel that is closed at the next presentation; see Presentations.
// A request has taken effect by then, and its answer is not sent yet. So call Changed
// before looking at what is there, and wait after it.
func (h *Handler) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.changed
}

// isDown answers a request while the server is down.
func (h *Handler) isDown(w http.ResponseWriter, r *http.Request) bool {
	h.mu.Lock()
	status := h.down
	h.mu.Unlock()
	if status == 0 {
		return false
	}
	if r.Method == http.MethodPost && r.URL.Path == "/oauth/token" {
		if params, err := parameters(r); err == nil {
			h.record(params, unreceived)
		}
	}
	jsonResponse(status, map[string]any{"error": "server_error"}).write(w)
	return true
}
