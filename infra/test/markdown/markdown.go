// Package markdown finds the code on the project's pages, for tests that check it. It knows as much of
// Markdown as these pages use.
package markdown

import (
	"regexp"
	"strings"
)

// Block is a block of code: between fences, or indented by four spaces or more.
type Block struct {
	Language string // as the fence says; "" for an indented block
	Text     string
}

// Code gives the blocks of code of a page, and the spans of code in the rest of it, each on one line.
func Code(page string) (blocks []Block, spans []string) {
	var prose strings.Builder
	var block *Block // the one that the line before belongs to
	fence := ""      // the indentation of the open fence, and ```
	before := ""
	for line := range strings.Lines(page) {
		text := strings.TrimLeft(line, " ")
		indent := line[:len(line)-len(text)]
		blank := strings.TrimSpace(line) == ""
		switch {
		case fence != "" && strings.TrimSpace(line) == "```":
			fence, block = "", nil
		case fence != "":
			block.Text += strings.TrimPrefix(line, strings.TrimSuffix(fence, "```"))
		case strings.HasPrefix(text, "```"):
			blocks = append(blocks, Block{Language: strings.TrimSpace(strings.Trim(text, "`\n"))})
			block, fence = &blocks[len(blocks)-1], indent+"```"
		case len(indent) >= 4 && !blank && (block != nil || before == ""):
			if block == nil {
				blocks = append(blocks, Block{})
				block = &blocks[len(blocks)-1]
			}
			block.Text += line[4:]
		case blank && block != nil:
			block.Text += "\n"
		default:
			block = nil
			prose.WriteString(line)
		}
		before = strings.TrimSpace(line)
	}
	for paragraph := range strings.SplitSeq(prose.String(), "\n\n") {
		for _, found := range span.FindAllStringSubmatch(paragraph, -1) {
			spans = append(spans, strings.Join(strings.Fields(found[1]), " "))
		}
	}
	return blocks, spans
}

var span = regexp.MustCompile("`([^`]+)`")
