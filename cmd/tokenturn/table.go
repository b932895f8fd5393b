package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// page is the text of one answer.
type page struct {
	strings.Builder
	width    int                      // of the screen, in columns; 0: any
	complete func(text string) string // makes commands in a text work as they are; nil: they do
}

// columns is the width of the terminal that shows the stream; 0: it is not one, or it does
// not say. Then nothing is fitted, because programs read lines.
func columns(stream any) int {
	width, _ := size(stream)
	return width
}

// rows is the height of the terminal that shows the stream; 0 as with columns.
func rows(stream any) int {
	_, height := size(stream)
	return height
}

func size(stream any) (width, height int) {
	f, ok := stream.(*os.File)
	if !ok {
		return 0, 0
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// table is printed with aligned columns if they fit the width of the page. Otherwise a table
// with a head loses its spare columns or, if that is not enough, is printed as one whole
// block of lines for each row. One without a head breaks the lines of its last column.
type table struct {
	head  []string
	spare []string // columns to do without first, if they are too many
	rows  [][]string
}

// row adds a row. All rows have the same number of cells.
func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

const gap = "  " // between columns

func (t *table) print(w io.Writer) {
	width := 0
	if p, ok := w.(*page); ok {
		width = p.width
		t.complete(p.complete)
	}
	all := t.rows
	if t.head != nil {
		all = append([][]string{t.head}, all...)
	}
	if len(all) == 0 {
		return
	}
	shown := all
	widths, before := measure(all)
	for _, name := range t.spare {
		if width == 0 || before+widths[len(widths)-1] <= width {
			break
		}
		shown = without(shown, slices.Index(shown[0], name))
		widths, before = measure(shown)
	}
	last := len(widths) - 1
	switch {
	case width == 0 || before+widths[last] <= width:
		for _, cells := range shown {
			fmt.Fprintln(w, strings.TrimRight(aligned(cells[:last], widths)+cells[last], " "))
		}
	case t.head != nil:
		for _, cells := range t.rows {
			t.block(w, cells, width)
		}
	case width-before < minColumn:
		for _, cells := range all {
			if line := strings.TrimRight(aligned(cells[:last], widths), " "); visible(line) > width {
				fmt.Fprintln(w, strings.Join(wrap(line, width), "\n  "))
			} else if line != "" {
				fmt.Fprintln(w, line)
			}
			if cells[last] != "" {
				fmt.Fprintln(w, "    "+strings.Join(wrap(cells[last], width-4), "\n    "))
			}
		}
	default:
		for _, cells := range all {
			lines := wrap(cells[last], width-before)
			fmt.Fprintln(w, aligned(cells[:last], widths)+strings.Join(lines, "\n"+strings.Repeat(" ", before)))
		}
	}
}

// complete completes the commands in all cells, before it is known how wide they are.
func (t *table) complete(complete func(string) string) {
	for _, cells := range t.rows {
		for n := range cells {
			if complete != nil {
				cells[n] = complete(cells[n])
			}
		}
	}
}

// measure returns the widths of the columns, and what is before the last one.
func measure(rows [][]string) (widths []int, before int) {
	widths = make([]int, len(rows[0]))
	for _, cells := range rows {
		for n, cell := range cells {
			widths[n] = max(widths[n], visible(cell))
		}
	}
	for _, w := range widths[:len(widths)-1] {
		before += w + len(gap)
	}
	return widths, before
}

// without leaves out a column.
func without(rows [][]string, column int) (rest [][]string) {
	for _, cells := range rows {
		rest = append(rest, slices.Delete(slices.Clone(cells), column, column+1))
	}
	return rest
}

// prose prints text that is no table. Its lines fit the width of the page.
func prose(w io.Writer, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if p, ok := w.(*page); ok {
		if p.complete != nil {
			text = p.complete(text)
		}
		text = fitProse(p.width, text)
	}
	fmt.Fprint(w, text)
}

// fitProse breaks the lines that are wider than width, unless that is 0. The other lines of
// each begin below its text.
func fitProse(width int, text string) string {
	if width == 0 {
		return text
	}
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		words := strings.TrimLeft(line, " ")
		indent := line[:len(line)-len(words)]
		more := indent
		if mark, _, _ := strings.Cut(words, " "); mark == "-" || mark == "→" {
			more += "  "
		}
		if visible(line) > width {
			line = indent + strings.Join(wrap(words, max(width-len(more), minColumn)), "\n"+more)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// minColumn is the width from which breaking the lines of a column helps.
const minColumn = 24

// aligned pads the cells of a line.
func aligned(cells []string, widths []int) string {
	var line strings.Builder
	for n, cell := range cells {
		line.WriteString(cell + strings.Repeat(" ", widths[n]-visible(cell)) + gap)
	}
	return line.String()
}

// block prints one row: its first cell, and below it a line for each other one.
func (t *table) block(w io.Writer, cells []string, width int) {
	fmt.Fprintln(w, cells[0])
	label := 0
	for _, name := range t.head[1:] {
		label = max(label, visible(name))
	}
	for n, cell := range cells[1:] {
		lines := wrap(cell, width-label-2*len(gap))
		indent := "\n" + strings.Repeat(" ", label+2*len(gap))
		fmt.Fprintf(w, "%s%s%s\n", gap, aligned([]string{strings.ToLower(t.head[n+1])}, []int{label}),
			strings.Join(lines, indent))
	}
}

var colors = regexp.MustCompile("\x1b\\[[0-9]+m")

// visible is how many columns a text takes.
func visible(text string) int { return utf8.RuneCountInString(colors.ReplaceAllString(text, "")) }

// wrap breaks a text into lines of at most width columns, at spaces only: what a person may
// copy stays whole.
func wrap(text string, width int) (lines []string) {
	line, length := "", 0
	for _, word := range strings.Fields(text) {
		if n := visible(word); line != "" && length+1+n > width {
			lines, line, length = append(lines, line), word, n
		} else if line == "" {
			line, length = word, n
		} else {
			line, length = line+" "+word, length+1+n
		}
	}
	return append(lines, line)
}
