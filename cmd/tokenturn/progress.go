package main

import (
	"github.com/schollz/progressbar/v3"
)

// progress shows a progress bar for long work: on a terminal only, and not with --json,
// where the reader is a program. Call step after each of total pieces, and end after the
// last one. Both may be called where nothing is shown.
func (c *cli) progress(what string, total int) (step, end func()) {
	if c.json || total < 2 || !isTerminal(c.stderr) {
		return func() {}, func() {}
	}
	bar := progressbar.NewOptions(total, progressbar.OptionSetWriter(c.stderr), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish())
	return func() { _ = bar.Add(1) }, func() { _ = bar.Finish() }
}
