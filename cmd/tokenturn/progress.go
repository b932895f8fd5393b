package main

import (
	"github.com/schollz/progressbar/v3"
)

// numbersWidth is what a progress bar has besides its name and the bar: a percentage, counts
// of thousands, and two times.
const numbersWidth = len(" 100% || (1000/1000) [10m0s:10m0s]")

// progress shows a progress bar for long work: on a terminal only, and not with --json,
// where the reader is a program. Call step after each of total pieces, and end after the
// last one. Both may be called where nothing is shown.
func (c *cli) progress(what string, total int) (step, end func()) {
	if c.json || total < 2 || !isTerminal(c.stderr) {
		return func() {}, func() {}
	}
	width := 30
	if columns := columns(c.stderr); columns > 0 {
		width = max(5, min(width, columns-len(what)-numbersWidth))
	}
	bar := progressbar.NewOptions(total, progressbar.OptionSetWriter(c.stderr), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionSetWidth(width), progressbar.OptionClearOnFinish())
	return func() { _ = bar.Add(1) }, func() { _ = bar.Finish() }
}
