package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

func (c *cli) serveCommand() *cobra.Command {
	var addr string
	var every time.Duration
	var demo bool
	var organization string
	cmd := verb("serve", "Run the whole system in this process, on the embedded store",
		`Serves invitations and callbacks, and rotates what is due, on the embedded store.
Links lead to http://localhost:PORT, so the redirect URI to register in the Developer
Portal is http://localhost:PORT/callback/ENV. What needs a person is in the log, and
on http://localhost:PORT/notices with links to send.

With --demo a stand-in for Procore runs beside it, with tokens that live four times
as long as --every (10s then), and all is set up for one connection.

Ctrl-C lets what is under way finish.`,
		func(ctx context.Context, cmd *cobra.Command) error {
			switch {
			case c.store != "embedded":
				return usageError(cmd, errors.New("serve runs on the embedded store; on AWS the two functions do its work"))
			case every < time.Second:
				return usageError(cmd, errors.New("--every takes at least 1s"))
			case consent.CheckOrganization(organization) != nil:
				return usageError(cmd, fmt.Errorf("--organization: %w", consent.CheckOrganization(organization)))
			case demo && !cmd.Flags().Changed("every"):
				every = demoEvery
			}
			listener, err := net.Listen("tcp", addr)
			if err != nil {
				return fmt.Errorf("listening on --addr %s: %w; choose another address with --addr", addr, err)
			}
			defer listener.Close()
			if demo {
				return c.demo(ctx, listener, every, cmp.Or(organization, demoOrganization))
			}
			return c.serve(ctx, listener, every, organization)
		})
	flags := cmd.Flags()
	flags.StringVar(&addr, "addr", "localhost:8080", "where to listen")
	flags.DurationVar(&every, "every", time.Hour, "time between two sweeps")
	flags.StringVar(&organization, "organization", "", "whom the pages name as the one who asks, such as your company")
	flags.BoolVar(&demo, "demo", false, "add a stand-in for Procore and set everything up")
	return c.withExamples(cmd,
		example{"Run on this machine", "tokenturn serve"},
		example{"Try it without a Procore account", "tokenturn serve --demo"},
		example{"Use another port, schedule and organization name",
			`tokenturn serve --addr localhost:9000 --every 30m --organization "Acme Builders"`})
}

func (c *cli) serve(ctx context.Context, listener net.Listener, every time.Duration, organization string) error {
	return c.withNew(ctx, func(in *installation) error {
		in.log = withRequestIDs(c.logger(slog.LevelInfo))
		in.publicURL, in.organization = localAddress(listener), organization
		c.say("Serving %s, and rotating what is due every %v. Redirect URI for the Developer Portal: %s",
			in.publicURL, every, callbackURL(in.publicURL, "ENV"))
		return c.system(in, every).run(ctx, listener)
	})
}

// localAddress is the public URL of a listener. People reach it from this
// machine alone: anything else would need https.
func localAddress(listener net.Listener) string {
	port := ""
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok {
		port = ":" + strconv.Itoa(tcp.Port)
	}
	return "http://localhost" + port
}

// system is both functions in one process.
type system struct {
	in           *installation
	every        time.Duration
	deferSignals func(why string) (finished func())
	// watch, if set, is told of every report.
	watch func(rotation.Report)
}

func (c *cli) system(in *installation, every time.Duration) *system {
	return &system{in: in, every: every, deferSignals: c.deferSignals}
}

// run serves until ctx is cancelled. What has been begun then still ends: a
// consent is saved, and so is the answer to a refresh.
func (s *system) run(ctx context.Context, listener net.Listener) error {
	followUps := newQueue()
	s.in.followUps = followUps
	s.in.settings.Cadence = s.every
	notices := &noticeBoard{ledger: s.in.ledger, host: strings.TrimPrefix(s.in.publicURL, "http://")}
	s.in.notifier = notices
	rotator, err := s.in.rotator()
	if err != nil {
		return err
	}
	callback, err := s.callbackHandler()
	if err != nil {
		return err
	}
	// An interrupt at this moment ends the program as any later one does, without an error.
	if err := s.resume(context.WithoutCancel(ctx), followUps); err != nil {
		return err
	}
	defer s.deferSignals("Stopping as soon as what is under way has ended, so that no pair is lost; " +
		"that takes two minutes at most.")()
	delivering, stopDelivering := context.WithCancel(context.WithoutCancel(ctx))
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		followUps.deliver(delivering, s.every, trigger.Handler{Engine: watched{rotator, s.watch}, Log: s.in.log})
	}()
	err = s.serveHTTP(ctx, listener, accessLog(notices.wrap(callback), s.in.log)) // returns when the last consent has ended
	stopDelivering()
	<-delivered
	return err
}

// resume asks for sweeps at the times that the ledger has in store before the
// next scheduled one: messages that an earlier process was to deliver then went
// with it.
func (s *system) resume(ctx context.Context, followUps rotation.FollowUps) error {
	records, err := s.in.ledger.List(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		if wait := time.Until(r.DueAt); wait > 0 && wait < s.every {
			err = errors.Join(err, followUps.Send(ctx, rotation.Request{Op: "sweep"}, wait))
		}
	}
	return err
}

// callbackHandler is what the callback function serves.
func (s *system) callbackHandler() (http.Handler, error) {
	consents, err := s.in.exchanges()
	if err != nil {
		return nil, err
	}
	return consent.New(consent.Config{Store: s.in.consents, Consents: consents, Applications: s.in.apps,
		AuthorizeURL: procore.AuthorizeURL, PublicURL: s.in.publicURL,
		Organization: s.in.organization, Logger: s.in.log, Now: time.Now})
}

// consentLimit is the longest that a consent may take once its code is spent;
// see the bounds of package consent.
const consentLimit = 70 * time.Second

func (s *system) serveHTTP(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: consentLimit + 30*time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.in.log.Handler(), slog.LevelWarn)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), consentLimit)
	defer cancel()
	if err := server.Shutdown(bounded); err != nil {
		return fmt.Errorf("waiting for requests under way: %w", err)
	}
	return nil
}

// watched tells watch what engine reports.
type watched struct {
	engine trigger.Engine
	watch  func(rotation.Report)
}

func (w watched) Do(ctx context.Context, request rotation.Request) (rotation.Report, error) {
	report, err := w.engine.Do(ctx, request)
	if err == nil && w.watch != nil {
		w.watch(report)
	}
	return report, err
}
