package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// maxHelpWidth is the width to which the help texts are written.
const maxHelpWidth = 90

func init() { // templates of cobra have no other way to a function
	cobra.AddTemplateFunc("fitLine", fitLine)
	cobra.AddTemplateFunc("fitText", fitText)
	cobra.AddTemplateFunc("fitExamples", fitExamples)
}

// fitHelp makes all help fit a terminal of that many columns.
func fitHelp(root *cobra.Command, width int) {
	text := min(width, maxHelpWidth)
	root.SetUsageTemplate(strings.NewReplacer(
		"{{.UseLine}}", fmt.Sprintf("{{fitLine %d 2 .UseLine}}", text),
		"{{.Short}}", fmt.Sprintf("{{fitLine %d .NamePadding 3 .Short}}", text),
		"{{.Example}}", fmt.Sprintf("{{fitExamples %d .Example}}", text),
		".FlagUsages |", fmt.Sprintf(".FlagUsagesWrapped %d |", width),
		`Use "{{.CommandPath}} [command] --help" for more information about a command.`,
		fmt.Sprintf("{{fitLine %d (printf `Use \"%%s [command] --help\" for more information about a command.` "+
			".CommandPath)}}", text),
	).Replace(root.UsageTemplate()))
	root.SetHelpTemplate(strings.NewReplacer(
		"{{.Short}}.", fmt.Sprintf(`{{fitLine %d (print .Short ".")}}`, text),
		"{{. | trimTrailingWhitespaces}}", fmt.Sprintf("{{fitText %d .}}", text),
	).Replace(root.HelpTemplate()))
}

// fitLine breaks a text, the last argument, that begins after as many columns as the other
// ones say together. Its other lines begin there too.
func fitLine(width int, args ...any) string {
	before := 0
	for _, columns := range args[:len(args)-1] {
		before += columns.(int)
	}
	return strings.Join(wrap(args[len(args)-1].(string), max(width-before, minColumn)), "\n"+strings.Repeat(" ", before))
}

// fitText breaks the lines of paragraphs and of lists to that width. What is indented or JSON stays
// as it is.
func fitText(width int, text string) string {
	var out []string
	words, indent := "", ""
	end := func() {
		if words != "" {
			out = append(out, strings.Join(wrap(words, width-len(indent)), "\n"+indent))
		}
		words, indent = "", ""
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		switch item := strings.HasPrefix(line, "- "); {
		case item:
			end()
			words, indent = line, "  "
		case line == "", strings.HasPrefix(line, "{"), strings.HasPrefix(line, " ") && indent == "":
			end()
			out = append(out, line)
		case indent != "" && !strings.HasPrefix(line, " "):
			end()
			words = line
		default:
			words += " " + line
		}
	}
	end()
	return strings.Join(out, "\n")
}

// fitExamples breaks commands between words, with the backslash that the shell needs.
func fitExamples(width int, text string) string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		if what, found := strings.CutPrefix(line, "  # "); found {
			out = append(out, "  # "+strings.Join(wrap(what, width-4), "\n  # "))
			continue
		}
		command := strings.TrimLeft(line, " ")
		first := line[:len(line)-len(command)]
		more := "      "
		command, continued := strings.CutSuffix(command, ` \`)
		var lines []string
		current := ""
		for _, word := range shellWords(command) {
			if current != "" && len(first)+len(current)+1+visible(word)+len(` \`) > width {
				lines, current, first = append(lines, first+current), "", more
			}
			current = strings.TrimSpace(current + " " + word)
		}
		lines = append(lines, first+current)
		line = strings.Join(lines, " \\\n")
		if continued {
			line += ` \`
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// shellWords splits a command at the spaces outside of quotes.
func shellWords(command string) (words []string) {
	var word strings.Builder
	var quote rune
	for _, r := range command {
		switch {
		case r == ' ' && quote == 0:
			words = append(words, word.String())
			word.Reset()
			continue
		case quote == r:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		}
		word.WriteRune(r)
	}
	return append(words, word.String())
}
