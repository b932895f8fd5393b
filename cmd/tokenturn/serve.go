package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/console"
	"github.com/tokenturn/tokenturn/pkg/loopback"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/readapi"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

func (c *cli) serveCommand() *cobra.Command {
	var o serveOptions
	var demo bool
	cmd := verb("serve", "Run the whole system on this machine",
		`Serves invitations and callbacks, and rotates the connections that are due, in one process
on the embedded store. Links lead to http://localhost:PORT, so register the redirect URI
http://localhost:PORT/callback/ENV in the Developer Portal. A warning names each app with
another redirect URI. serve holds the port on every address of the host name in --addr
(localhost: 127.0.0.1 and ::1), or does not start.

http://localhost:PORT/ is the console, for browsers on this machine: a live page that shows
every connection and what needs a person, with buttons for what can be done. Everyone who
can use this machine can use it.

http://localhost:PORT/secretsmanager gives access tokens to programs on this machine, as the
AWS Secrets Manager Agent and Secrets Manager itself do. A program needs the token in the file
that is named at the start (--token-file). It can read access tokens, and nothing else. A token
with less than a minute left is renewed first. To let a group of users read, put the file where
they can reach it (not in the data directory) and name the group with --token-group.

--demo also starts a stand-in for Procore and sets up one connection. Its tokens live four
times as long as --every, which is 10s for the demo unless you set it. The console of the
demo has buttons that break something and show how tokenturn recovers. For them, rotations
run in a second process, and lease, quiet period and redeem timeout are short.

In a terminal, and with --demo, the log is in sentences. Otherwise it is in logfmt, and with
--json in JSON. --log chooses the format.

After the machine slept, what became due is done within a minute. tokenturn doctor says whether
serve runs.

After Ctrl-C, tokenturn finishes what it has begun and stops.`,
		func(ctx context.Context, cmd *cobra.Command) error {
			switch {
			case c.store != "embedded":
				return usageError(cmd, errors.New("serve needs the embedded store; in AWS the two functions do its work"))
			case o.every < time.Second:
				return usageError(cmd, errors.New("--every takes at least 1s"))
			case consent.CheckOrganization(o.organization) != nil:
				return usageError(cmd, fmt.Errorf("--organization: %w", consent.CheckOrganization(o.organization)))
			case o.tokenGroup != "" && o.tokenFile == "":
				return usageError(cmd, errors.New("--token-group needs --token-file: no other user can reach the file in "+
					"the data directory"))
			case unknownGroup(o.tokenGroup):
				return usageError(cmd, fmt.Errorf("--token-group: this system has no group %q", o.tokenGroup))
			case demo && !cmd.Flags().Changed("every"):
				o.every = demoEvery
			}
			listeners, err := listen(o.addr)
			if err != nil {
				return c.listenError(o.addr, demo, err)
			}
			defer closeAll(listeners)
			if demo {
				o.organization = cmp.Or(o.organization, demoOrganization)
				return c.demo(ctx, listeners, o)
			}
			return c.serve(ctx, listeners, o)
		})
	flags := cmd.Flags()
	flags.StringVar(&o.addr, "addr", "localhost:8080", "address to listen on; every address that its host name has")
	flags.DurationVar(&o.every, "every", time.Hour, "time between two sweeps")
	flags.StringVar(&o.organization, "organization", "", "company name shown on the consent pages")
	flags.StringVar(&o.tokenFile, "token-file", "", "`FILE` with the token for programs that read access tokens (default "+
		readerTokenName+" in the data directory)")
	flags.StringVar(&o.tokenGroup, "token-group", "", "`GROUP` of users that may read the token file")
	flags.BoolVar(&demo, "demo", false, "start a stand-in for Procore and set up one connection")
	return c.withExamples(cmd,
		example{"Run on this machine", "tokenturn serve"},
		example{"Try it without a Procore account", "tokenturn serve --demo"},
		example{"Use another port, schedule and organization name",
			`tokenturn serve --addr localhost:9000 --every 30m --organization "Acme Builders"`})
}

// unknownGroup reports whether a group was named that does not exist.
func unknownGroup(group string) bool {
	if group == "" {
		return false
	}
	_, err := user.LookupGroup(group)
	_, unknown := errors.AsType[user.UnknownGroupError](err)
	return unknown
}

type serveOptions struct {
	addr                  string
	every                 time.Duration
	organization          string
	tokenFile, tokenGroup string
}

// listen opens an address on every address of its host name.
func listen(addr string) ([]net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return loopback.Bind(host, port)
}

func closeAll(listeners []net.Listener) {
	for _, listener := range listeners {
		_ = listener.Close()
	}
}

// listenError says how to choose another address in the words with which this one was chosen.
func (c *cli) listenError(addr string, demo bool, err error) error {
	if demo && c.getenv("MAKELEVEL") != "" { // `make run`
		return fmt.Errorf("listening on %s: %w; choose another address: make run ADDR=localhost:9000", addr, err)
	}
	return fmt.Errorf("listening on --addr %s: %w; choose another address with --addr, such as --addr localhost:9000",
		addr, err)
}

func (c *cli) serve(ctx context.Context, listeners []net.Listener, o serveOptions) error {
	return c.withNew(ctx, func(in *installation) error {
		in.log = withRequestIDs(c.logger(slog.LevelInfo))
		in.publicURL, in.organization = localAddress(listeners[0]), o.organization
		s := c.system(in, o.every)
		if err := s.giveTokens(o); err != nil {
			return err
		}
		c.say("Console: %s/", in.publicURL)
		c.say("Serving %s. Connections that are due are rotated every %v. Redirect URI for the Developer Portal: %s",
			in.publicURL, o.every, callbackURL(in.publicURL, "ENV"))
		c.say("Programs on this machine read access tokens at %s%s with the token in %s", in.publicURL, readapi.Path,
			s.readerFile)
		// An interrupt at this moment ends the program without an error; see run.
		if err := s.warnOfRedirects(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		if c.logFormat() == sentences {
			s.watch = (&narrator{out: c.stderr}).report
		}
		return s.run(ctx, listeners)
	})
}

// localAddress is the public URL of a listener. People reach it from this machine only:
// anything else would need https.
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
	cli          *cli
	deferSignals func(why string) (finished func())
	// watch, if set, gets every report.
	watch func(rotation.Report)
	// start starts the engine, and returns how to stop it; nil: the engine of this process.
	start func(rotation.FollowUps, rotation.Notifier) (trigger.Engine, func(), error)
	// experiments, if set, are on the console.
	experiments console.Experiments
	// command is how to run the command for this installation, as the console shows it.
	command string
	// readerToken is what programs need to read access tokens; zero: none can.
	readerToken token.Secret
	readerFile  string // has it
}

func (c *cli) system(in *installation, every time.Duration) *system {
	return &system{in: in, every: every, cli: c, deferSignals: c.deferSignals, command: c.thisCommand()}
}

// run serves until ctx is cancelled. Work in progress is still finished: a consent is saved,
// and so is the answer to a refresh.
func (s *system) run(ctx context.Context, listeners []net.Listener) error {
	followUps := newQueue(time.Now)
	s.in.followUps = followUps
	s.in.settings.Cadence = s.every
	notices := &noticeBoard{}
	s.in.notifier = notices
	rotator, err := s.in.rotator()
	if err != nil {
		return err
	}
	engine, stop, err := s.startEngine(rotator)
	if err != nil {
		return err
	}
	defer stop()
	callback, err := s.callbackHandler()
	if err != nil {
		return err
	}
	pages, err := s.console(rotator, notices)
	if err != nil {
		return err
	}
	tokens, err := s.readAPI(engine)
	if err != nil {
		return err
	}
	// A later interrupt ends the program without an error, so one at this moment does too.
	if err := s.resume(context.WithoutCancel(ctx), followUps); err != nil {
		return err
	}
	defer s.deferSignals("Stopping when the work in progress is finished, so that no token pair is lost; " +
		"this takes at most two minutes.")()
	delivering, stopDelivering := context.WithCancel(context.WithoutCancel(ctx))
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		heart := s.heart()
		defer heart.stop()
		followUps.deliver(delivering, s.every, trigger.Handler{Engine: watched{engine, s.watch}, Log: s.in.log}, heart.beat)
	}()
	// It returns when the last consent is finished.
	err = serveHTTP(ctx, listeners, accessLog(tokens.Wrap(pages.Wrap(callback)), s.in.log), s.in.log,
		pages.Close)
	stopDelivering()
	<-delivered
	tokens.Wait()
	stop()
	return err
}

// startEngine starts what carries out requests: own, unless start has another one. stop may
// be called twice.
func (s *system) startEngine(own trigger.Engine) (engine trigger.Engine, stop func(), err error) {
	if s.start == nil {
		return own, func() {}, nil
	}
	engine, stop, err = s.start(s.in.followUps, s.in.notifier)
	return engine, sync.OnceFunc(stop), err
}

// resume requests sweeps at the due times before the next scheduled sweep: the messages that
// an earlier process would have delivered then are lost with it.
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

// callbackHandler is the handler of the callback function.
func (s *system) callbackHandler() (http.Handler, error) {
	consents, err := s.in.exchanges()
	if err != nil {
		return nil, err
	}
	return consent.New(consent.Config{Store: s.in.consents, Consents: consents, Applications: s.in.apps,
		AuthorizeURL: procore.AuthorizeURL, PublicURL: s.in.publicURL,
		Organization: s.in.organization, ReturnOrigins: s.in.returnOrigins, Faces: s.in.face,
		Logger: s.in.log, Now: time.Now})
}

// consentLimit is the longest time that a consent may take once its code is spent; see the
// limits of package consent.
const consentLimit = 70 * time.Second

// requestLimit is the longest time that any request may take.
const requestLimit = max(consentLimit, readapi.Limit)

// console serves the overview and the page of each connection on the same listener.
func (s *system) console(rotator *rotation.Rotator, notices *noticeBoard) (*console.Handler, error) {
	return console.New(console.Config{Connections: s.in.ledger,
		Actions: &consoleActions{s.cli, s.in, rotator, s.in.publicURL}, Notices: notices.newestFirst,
		Experiments: s.experiments, PublicURL: s.in.publicURL, Cadence: s.every, PutsPerDay: s.in.settings.PutsPerDay,
		Command: s.command, ReaderToken: s.readerFile, RedirectURI: callbackURL(s.in.publicURL, "sandbox"),
		Logger: s.in.log, Now: time.Now})
}

// warnOfRedirects names each app that cannot be connected here, because Procore would send
// the browser to another address.
func (s *system) warnOfRedirects(ctx context.Context) error {
	environments, err := s.in.environments(ctx)
	if err != nil {
		return err
	}
	for _, environment := range environments {
		app, err := s.in.apps.Application(ctx, environment)
		here := callbackURL(s.in.publicURL, environment)
		if err != nil || app.RedirectURI == here || app.RedirectURI == procore.OutOfBand {
			continue // unusable credentials are a finding of doctor; out of band needs no server
		}
		other := ""
		if u, err := url.Parse(app.RedirectURI); err == nil && loopback.IsLoopback(app.RedirectURI) &&
			app.RedirectURI == callbackURL("http://localhost:"+u.Port(), environment) {
			other = fmt.Sprintf("start with --addr localhost:%s, or ", u.Port())
		}
		s.cli.say("Warning: consent links of %s do not work here: its app has the redirect URI %s. To serve them, "+
			"%sregister %s in the Developer Portal and store it with: tokenturn app set %[1]s",
			environment, app.RedirectURI, other, here)
	}
	return nil
}

// giveTokens lets programs on this machine read access tokens.
func (s *system) giveTokens(o serveOptions) (err error) {
	s.readerFile = cmp.Or(o.tokenFile, filepath.Join(s.in.dir, readerTokenName))
	if s.readerToken, err = readerToken(s.readerFile, o.tokenGroup); err != nil {
		return err
	}
	return nil
}

// readAPI gives access tokens to programs on this machine.
func (s *system) readAPI(engine readapi.Engine) (*readapi.Handler, error) {
	u, err := url.Parse(s.in.publicURL)
	if err != nil {
		return nil, err
	}
	return readapi.New(readapi.Config{Ledger: s.in.ledger, Secrets: s.in.secrets, Engine: engine, Token: s.readerToken,
		Port: u.Port(), Explain: outcomeError, Logger: s.in.log, Now: time.Now})
}

// serveHTTP serves until ctx is cancelled. over is called before the requests in progress
// are waited for.
func serveHTTP(ctx context.Context, listeners []net.Listener, handler http.Handler, log *slog.Logger,
	over func()) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: requestLimit + 30*time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	ended := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func() { ended <- fmt.Errorf("serving %s: %w", listener.Addr(), server.Serve(listener)) }()
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	over()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestLimit)
	defer cancel()
	if err := server.Shutdown(bounded); err != nil {
		return fmt.Errorf("waiting for requests in progress: %w", err)
	}
	return nil
}

// watched gives the reports of engine to watch.
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
