package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/console"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// passwordName begins the name of the file in the data directory with a console's password.
// Each console has its own.
const passwordName = "console-password-"

func (c *cli) consoleCommand() *cobra.Command {
	var addr, publicURL string
	var allowActions bool
	var refresh time.Duration
	cmd := verb("console", "Show every connection on a live page",
		`Serves a page that shows every connection, its life and what needs a person, and keeps it
up to date. "tokenturn serve" has the same page at its own address; this command is for an
installation in AWS, or for a second look at the store on this machine. The page is
read-only unless you add --allow-actions.

It answers browsers on this machine only. --public-url lets people reach it from elsewhere,
through a proxy that ends TLS: they log in with a password that changes at each start.
tokenturn writes it to a file that only you can read and prints the file's name. Behind a
proxy, always use --public-url: without it there is no login, and tokenturn refuses a
forwarded request only if the proxy says so in a header such as X-Forwarded-For.

While a page is open, tokenturn reads all connections once per --refresh, however many pages
are open. In AWS each connection is one read unit of DynamoDB: 1,000 connections cost about
$0.09 an hour.`,
		func(ctx context.Context, cmd *cobra.Command) error {
			if cmd.Flags().Changed("refresh") && refresh < time.Second {
				return usageError(cmd, errors.New("--refresh takes at least 1s"))
			}
			if err := checkConsoleURL(publicURL); err != nil {
				return usageError(cmd, err)
			}
			listeners, err := listen(addr)
			if err != nil {
				return fmt.Errorf("listening on --addr %s: %w; choose another address with --addr", addr, err)
			}
			defer closeAll(listeners)
			if publicURL == "" && slices.ContainsFunc(listeners, isPublic) {
				return usageError(cmd, fmt.Errorf("--addr %s can be reached from other machines; add --public-url, or use "+
					"localhost", addr))
			}
			if refresh == 0 && c.store == "aws" {
				refresh = 5 * time.Second
			}
			return c.with(ctx, func(in *installation) error {
				return c.console(ctx, in, listeners, strings.TrimRight(publicURL, "/"), allowActions, refresh)
			})
		})
	flags := cmd.Flags()
	flags.StringVar(&addr, "addr", "localhost:8090", "address to listen on")
	flags.BoolVar(&allowActions, "allow-actions", false, "let people rotate, invite, disconnect and so on")
	flags.StringVar(&publicURL, "public-url", "", "URL under which people on other machines reach the page; they log in")
	flags.DurationVar(&refresh, "refresh", 0, "time between two reads of the store while a page is open (default 1s; in "+
		"AWS 5s)")
	return c.withExamples(cmd,
		example{"Show the installation in AWS, read-only", "tokenturn --store aws console"},
		example{"Show the store on this machine, and allow actions", "tokenturn console --allow-actions"},
		example{"Let people log in from elsewhere, through a proxy",
			"tokenturn --store aws console --addr 0.0.0.0:8090\n--public-url https://console.example.com"})
}

// checkConsoleURL refuses an address over which a password would travel in clear.
func checkConsoleURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" ||
		u.Fragment != "":
		return fmt.Errorf("--public-url %q is not a URL such as https://console.example.com", text)
	case u.Scheme == "https":
		return nil
	}
	address, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && address.IsLoopback()) {
		return nil
	}
	return errors.New("--public-url takes an https:// URL, because people send a password to it")
}

// isPublic reports whether other machines may reach a listener.
func isPublic(listener net.Listener) bool {
	tcp, ok := listener.Addr().(*net.TCPAddr)
	return !ok || !tcp.IP.IsLoopback()
}

func (c *cli) console(ctx context.Context, in *installation, listeners []net.Listener, publicURL string,
	allowActions bool, refresh time.Duration) (err error) {
	in.log = withRequestIDs(c.logger(slog.LevelInfo))
	cfg := console.Config{Connections: in.ledger, PublicURL: localAddress(listeners[0]), Interval: refresh,
		PutsPerDay: in.settings.PutsPerDay, Command: c.thisCommand(), Installation: c.installationName(),
		Logger: in.log, Now: time.Now,
		RedirectURI: callbackURL(in.publicURL, "sandbox")}
	if in.publicURL == "" {
		cfg.RedirectURI = callbackURL("https://YOUR-HOST", "sandbox")
	}
	if c.store == "aws" {
		cfg.SecretPrefix = in.secretPrefix
	}
	if allowActions {
		rotator, err := in.rotator()
		if err != nil {
			return err
		}
		cfg.Actions = &consoleActions{c: c, in: in, rotator: rotator}
	}
	if publicURL != "" {
		cfg.PublicURL = publicURL
		file, password, err := c.consolePassword()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.Remove(file)) }()
		cfg.Password = password
		c.say("The password is in %s.", file)
	}
	pages, err := console.New(cfg)
	if err != nil {
		return err
	}
	c.say("Console: %s/", cfg.PublicURL)
	if allowActions {
		defer c.deferSignals(finishingFirst)()
	}
	return serveHTTP(ctx, listeners, accessLog(pages.Wrap(http.NotFoundHandler()), in.log), in.log, pages.Close)
}

// consolePassword makes a password and writes it to a file that only its owner can read.
func (c *cli) consolePassword() (file string, password token.Secret, err error) {
	dir, err := c.dataDir()
	if err != nil {
		return "", token.Secret{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", token.Secret{}, fmt.Errorf("making the directory of the password: %w", err)
	}
	password = token.NewSecret(rand.Text())
	f, err := os.CreateTemp(dir, passwordName) // only its owner can read it
	if err != nil {
		return "", token.Secret{}, fmt.Errorf("writing the password: %w", err)
	}
	_, err = f.WriteString(password.Reveal() + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return "", token.Secret{}, errors.Join(fmt.Errorf("writing the password: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), password, nil
}
