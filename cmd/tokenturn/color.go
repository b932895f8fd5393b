package main

// color is an escape sequence that sets the color of text (ECMA-48, SGR). All
// are equally long, so that painted cells of a table column stay in line.
type color string

const (
	plain  color = "\x1b[39m"
	red    color = "\x1b[31m"
	green  color = "\x1b[32m"
	yellow color = "\x1b[33m"
)

// painter paints text for people. It never says anything by color alone.
type painter struct{ on bool }

// painter paints on a terminal only, and not where https://no-color.org is heard.
func (c *cli) painter() painter {
	return painter{isTerminal(c.stdout) && c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb"}
}

func (p painter) paint(text string, with color) string {
	if !p.on {
		return text
	}
	return string(with) + text + string(plain)
}
