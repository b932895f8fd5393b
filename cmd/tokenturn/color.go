package main

// color is an escape sequence that sets the color of text (ECMA-48, SGR).
type color string

const (
	plain  color = "\x1b[39m"
	red    color = "\x1b[31m"
	green  color = "\x1b[32m"
	yellow color = "\x1b[33m"
)

// painter colors text for people. No meaning depends on color alone.
type painter struct{ on bool }

// painter colors on a terminal only, and follows https://no-color.org.
func (c *cli) painter() painter {
	return painter{isTerminal(c.stdout) && c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb"}
}

func (p painter) paint(text string, with color) string {
	if !p.on {
		return text
	}
	return string(with) + text + string(plain)
}
