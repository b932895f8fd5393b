package console

import "time"

// SetPatience changes how long a browser may take to accept an update.
func (h *Handler) SetPatience(d time.Duration) { h.patience = d }
