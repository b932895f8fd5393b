package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/logo"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// appFace is what people see of an app, as the flags of `app set` change it. nil: unchanged.
type appFace struct {
	name *string
	logo *string // a data: URL
}

func (f *appFace) flags(cmd *cobra.Command) {
	cmd.Flags().String("name", "", "name of the app on the consent page")
	cmd.Flags().String("logo", "", "PNG or SVG `file` with the logo of the app on the consent page")
}

// read takes the flags that are given, and reads the file before anything is asked or stored.
func (f *appFace) read(cmd *cobra.Command) error {
	if name, _ := cmd.Flags().GetString("name"); cmd.Flags().Changed("name") {
		if name = strings.TrimSpace(name); consent.CheckOrganization(name) != nil {
			return usageError(cmd, errors.New("--name takes at most 80 characters, all printable"))
		}
		f.name = &name
	}
	if path, _ := cmd.Flags().GetString("logo"); cmd.Flags().Changed("logo") {
		url, err := readLogo(path)
		if err != nil {
			return exitf(usage, "--logo: %w; nothing was stored", err)
		}
		f.logo = &url
	}
	return nil
}

func readLogo(path string) (url string, err error) {
	if path == "" {
		return "", nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, logo.MaxFile+1))
	if err != nil {
		return "", err
	}
	made, err := logo.Read(content)
	if err != nil {
		return "", err
	}
	return made.URL(), nil
}

func (f *appFace) given() bool { return f.name != nil || f.logo != nil }

func (f *appFace) apply(credentials *procore.Credentials) {
	if f.name != nil {
		credentials.Name = *f.name
	}
	if f.logo != nil {
		credentials.Logo = *f.logo
	}
}

// setFace changes name and logo of stored app credentials and nothing else, so nobody has to
// type the client secret again.
func (c *cli) setFace(ctx context.Context, in *installation, environment string, flags appSetFlags) error {
	credentials, err := storedCredentials(ctx, in, environment)
	if errors.Is(err, rotation.ErrNoApplication) {
		return in.withoutApplication(ctx, environment)
	}
	if err != nil {
		return fmt.Errorf("reading the app credentials of %s: %w; nothing was stored", environment, err)
	}
	flags.face.apply(&credentials)
	a := appSetAnswer{appAnswer: newAppAnswer(environment, credentials), Check: "skipped", Affected: []affected{}}
	if flags.dryRun {
		c.say("Nothing was stored. To store this, leave out --dry-run.")
		return c.answer(a, a.print)
	}
	if err := in.storeCredentials(ctx, environment, credentials); err != nil {
		return err
	}
	a.Stored = true
	c.say("Stored. The consent page of %s shows it within a minute. Client id, client secret and URLs are as before.",
		environment)
	return c.answer(a, a.print)
}

// face is what people see of the app of an environment.
func (in *installation) face(ctx context.Context, environment string) (consent.Face, error) {
	credentials, err := storedCredentials(ctx, in, environment)
	return consent.Face{Name: credentials.Name, Logo: credentials.Logo}, err
}

// logoType is the media type of a stored logo.
func logoType(url string) string {
	media, _, _ := strings.Cut(strings.TrimPrefix(url, "data:"), ";")
	return media
}
