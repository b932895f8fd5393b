package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

// demoEvery is the schedule of the demo without --every.
const demoEvery = 10 * time.Second

const demoOrganization = "Acme Builders (demo)"

var demoConnection = token.Connection{Environment: "demo", Name: "acme"}

// demo serves next to a stand-in for Procore, set up for one connection. Rotations run in a
// process of their own, which experiments kill. Without --data it deletes its store at the
// end.
func (c *cli) demo(ctx context.Context, listeners []net.Listener, o serveOptions) (err error) {
	dir, err := c.demoDir()
	if err != nil {
		return err
	}
	if c.data == "" {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	d, err := c.newDemo(ctx, dir, localAddress(listeners[0]), newDemoTiming(o.every), o.organization)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	return d.run(ctx, listeners, o)
}

// demo is the stand-in and what the experiments need.
type demo struct {
	cli     *cli
	dir     string
	timing  demoTiming
	in      *installation
	standIn *procoretest.Server
	faults  *faults
	lab     *lab
	link    token.Secret // with which the connection is connected
}

func (c *cli) newDemo(ctx context.Context, dir, publicURL string, timing demoTiming, organization string) (_ *demo,
	err error) {
	c.environ = append(slices.Clip(c.environ), timing.environ()...) // the last value of a variable counts
	d := &demo{cli: c, dir: dir, timing: timing}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if c.log == "" && !c.json {
		c.log = sentences
	}
	log := withRequestIDs(c.logger(slog.LevelInfo))
	if d.in, err = c.openEmbedded(ctx, dir, log); err != nil {
		return nil, err
	}
	d.in.publicURL, d.in.organization = publicURL, organization
	app := procoretest.App{Name: "tokenturn demo", ClientID: "tokenturn-demo", ClientSecret: token.NewSecret(rand.Text()),
		RedirectURIs: []string{callbackURL(publicURL, demoConnection.Environment), procore.OutOfBand}}
	d.standIn = procoretest.New(procoretest.WithApp(app), procoretest.WithLifetime(timing.lifetime),
		procoretest.With(normal))
	if d.faults, err = newFaults(ctx, filepath.Join(dir, embedded.DatabaseName)); err != nil {
		return nil, err
	}
	d.faults.timing, d.faults.standIn, d.faults.app = timing, d.standIn, app
	d.lab = newLab(demoConnection, d.in, d.faults)
	d.link, err = d.in.setUpDemo(ctx, app, d.standIn.URL)
	return d, err
}

func (d *demo) close() (err error) {
	if d.faults != nil {
		err = d.faults.close()
	}
	if d.standIn != nil {
		d.standIn.Close()
	}
	if d.in != nil {
		err = errors.Join(err, d.in.close())
	}
	return err
}

// run serves until ctx is cancelled.
func (d *demo) run(ctx context.Context, listeners []net.Listener, o serveOptions) error {
	s := d.cli.system(d.in, d.timing.every)
	if err := s.giveTokens(o); err != nil {
		return err
	}
	d.cli.printGuide(d.in.publicURL, d.link)
	s.experiments = d.lab
	s.command = shellWord(thisProgram()) + " --data " + shellWord(d.dir)
	out := io.Discard
	if d.cli.logFormat() == sentences {
		out = d.cli.stderr
	}
	s.watch = (&demoNarrator{narrator: &narrator{out: out}, lab: d.lab,
		read: s.command + " token print " + demoConnection.String()}).report
	s.start = func(followUps rotation.FollowUps, notifier rotation.Notifier) (trigger.Engine, func(), error) {
		worker, err := newSupervisor(d.worker, followUps, watchedNotifier{notifier, d.lab}, d.in.log)
		if err != nil {
			return nil, nil, err
		}
		d.lab.change(func() { d.faults.followUps, d.faults.supervisor = followUps, worker })
		// Experiments end first: normal conditions are back while the last requests are finished.
		context.AfterFunc(ctx, d.lab.close)
		return worker, func() {
			d.lab.close()
			worker.close()
		}, nil
	}
	return s.run(ctx, listeners)
}

// worker says how to start the rotation process.
func (d *demo) worker(clock time.Duration) *exec.Cmd {
	program, err := os.Executable()
	if err != nil {
		program = "tokenturn"
	}
	cmd := exec.Command(program, "worker", "--store", "embedded", "--data", d.dir, "--public-url", d.in.publicURL,
		"--clock", clock.String(), "--log", d.cli.logFormat())
	cmd.Args[0] = "tokenturn" // whatever the file is called
	cmd.Env, cmd.Stderr = d.cli.environ, d.cli.stderr
	apart(cmd)
	return cmd
}

// watchedNotifier gives notices to the experiments as well.
type watchedNotifier struct {
	rotation.Notifier
	lab *lab
}

func (w watchedNotifier) Notify(ctx context.Context, n rotation.Notice) error {
	w.lab.notify(n)
	return w.Notifier.Notify(ctx, n)
}

func (c *cli) demoDir() (string, error) {
	if c.data != "" {
		return c.dataDir()
	}
	dir, err := os.MkdirTemp("", "tokenturn-demo-*")
	if err != nil {
		return "", fmt.Errorf("creating a directory for the demo: %w; choose one with --data", err)
	}
	return dir, nil
}

// setUpDemo does what a person does with `app set` and `connection invite`.
func (in *installation) setUpDemo(ctx context.Context, app procoretest.App, procoreURL string) (link token.Secret,
	err error) {
	value, err := procore.Credentials{Name: app.Name, ClientID: app.ClientID, ClientSecret: app.ClientSecret,
		RedirectURI: app.RedirectURIs[0],
		LoginURL:    procoreURL, APIURL: procoreURL}.Encode()
	if err != nil {
		return token.Secret{}, err
	}
	if err := in.apps.Set(ctx, demoConnection.Environment, value); err != nil {
		return token.Secret{}, err
	}
	link, _, err = in.makeInvitation(ctx, demoConnection, in.publicURL, invitation{expires: invitations.DefaultLifetime})
	return link, err
}

func (c *cli) printGuide(console string, link token.Secret) {
	user := procoretest.DefaultUser()
	fmt.Fprintf(c.stdout, `tokenturn demo: everything runs on this machine; you need no Procore account.

  Console       %s
  Consent link  %s

Sign in at the stand-in for Procore with email %s and password "%s".
Press Ctrl-C to end the demo.

`, console, link.Reveal(), user.Login, user.Password)
}

// thisProgram is how to run this program from a shell: by name if the shell finds it,
// otherwise by path.
func thisProgram() string {
	path, err := os.Executable()
	if err != nil {
		return "tokenturn"
	}
	if found, err := exec.LookPath("tokenturn"); err == nil && sameFile(found, path) {
		return "tokenturn"
	}
	return path
}

func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// shellWord quotes text that a shell would not read as one word.
func shellWord(text string) string {
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !strings.ContainsRune("/._-+:@%", r) && !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// demoNarrator narrates reports, and gives them to the experiments. After the first
// published pair it says how to read the token.
type demoNarrator struct {
	*narrator
	lab  *lab
	read string // command that prints the token
	once sync.Once
}

func (n *demoNarrator) report(report rotation.Report) {
	n.narrator.report(report)
	n.lab.report(report)
	if report.Outcomes[rotation.Rotated]+report.Outcomes[rotation.Published] > 0 {
		n.once.Do(func() { n.line(time.Now(), "read the access token in another terminal: %s", n.read) })
	}
}

func clock(t time.Time) string { return t.Local().Format(time.TimeOnly) }
