package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/tokenturn/tokenturn/pkg/release"
)

// manCommand generates the manual pages from the commands, so that they say the same.
func (c *cli) manCommand() *cobra.Command {
	return c.withExamples(verbOn(parseDirectory, "man DIRECTORY", "Write the manual pages to a directory",
		`Writes one page for each command, for man(1).`,
		func(_ context.Context, cmd *cobra.Command, directory string) error {
			if err := os.MkdirAll(directory, 0o755); err != nil {
				return fmt.Errorf("creating the directory: %w", err)
			}
			header := &doc.GenManHeader{Title: "TOKENTURN", Section: "1", Source: "tokenturn " + release.Version(),
				Manual: "tokenturn"}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			if err := doc.GenManTree(root, header, directory); err != nil {
				return fmt.Errorf("writing the manual pages: %w", err)
			}
			return c.answer(manAnswer{directory}, func(w io.Writer) {
				fmt.Fprintf(w,
					"Written. Read them with: man -l %s/tokenturn.1\n", directory)
			})
		}),
		example{"Write the manual pages and read one",
			"tokenturn man ~/.local/share/man/man1 && man tokenturn-connection-invite"})
}

// manAnswer is what `man --json` answers.
type manAnswer struct {
	Directory string `json:"directory"`
}

func parseDirectory(text string) (string, error) {
	if text == "" {
		return "", errors.New("the name of the directory is empty")
	}
	return text, nil
}
