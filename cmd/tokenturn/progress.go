package main

import (
	"github.com/schollz/progressbar/v3"
)

// progress shows a person how far long work has come: on a terminal only, and
// not beside JSON, whose readers are programs. step is to be called after each
// of total pieces, end when no more come; both are safe to call where nothing
// is shown.
func (c *cli) progress(what string, total int) (step, end func()) {
	if c.json || total < 2 || !isTerminal(c.stderr) {
		return func() {}, func() {}
	}
	bar := progressbar.NewOptions(total, progressbar.OptionSetWriter(c.stderr), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish())
	return func() { _ = bar.Add(1) }, func() { _ = bar.Finish() }
}
