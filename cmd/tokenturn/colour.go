package main

// colour is an escape sequence that sets the colour of text (ECMA-48, SGR). All
// are equally long, so that painted cells of a table column stay in line.
type colour string

const (
	plain  colour = "\x1b[39m"
	red    colour = "\x1b[31m"
	green  colour = "\x1b[32m"
	yellow colour = "\x1b[33m"
)

// painter paints text for people. It never says anything by colour alone.
type painter struct{ on bool }

// painter paints on a terminal only, and not where https://no-color.org is heard.
func (c *cli) painter() painter {
	return painter{isTerminal(c.stdout) && c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb"}
}

func (p painter) paint(text string, with colour) string {
	if !p.on {
		return text
	}
	return string(with) + text + string(plain)
}
