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
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// demoEvery is the schedule of the demo without --every.
const demoEvery = 10 * time.Second

const demoOrganization = "Acme Builders (demo)"

var demoConnection = token.Connection{Environment: "demo", Name: "acme"}

// demo serves next to a stand-in for Procore, set up for one connection. Without --data it
// deletes its store at the end.
func (c *cli) demo(ctx context.Context, listener net.Listener, every time.Duration, organization string) (err error) {
	dir, err := c.demoDir()
	if err != nil {
		return err
	}
	if c.data == "" {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	in, err := c.openEmbedded(ctx, dir, c.logger(slog.LevelWarn))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	in.publicURL, in.organization = localAddress(listener), organization

	app := procoretest.App{Name: "tokenturn demo", ClientID: "tokenturn-demo", ClientSecret: token.NewSecret(rand.Text()),
		RedirectURIs: []string{callbackURL(in.publicURL, demoConnection.Environment), procore.OutOfBand}}
	standIn := procoretest.New(procoretest.WithApp(app), procoretest.WithLifetime(4*every))
	defer standIn.Close()

	link, err := in.setUpDemo(ctx, app, standIn.URL)
	if err != nil {
		return err
	}
	c.printGuide(link, standIn.URL, dir, every)
	s := c.system(in, every)
	s.watch = (&demoReporter{out: c.stdout}).print
	return s.run(ctx, listener)
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
	value, err := procore.Credentials{ClientID: app.ClientID, ClientSecret: app.ClientSecret,
		RedirectURI: app.RedirectURIs[0],
		LoginURL:    procoreURL, APIURL: procoreURL}.Encode()
	if err != nil {
		return token.Secret{}, err
	}
	if err := in.apps.Set(ctx, demoConnection.Environment, value); err != nil {
		return token.Secret{}, err
	}
	link, _, err = in.makeInvitation(ctx, demoConnection, in.publicURL, invitation{expires: consent.DefaultLifetime})
	return link, err
}

func (c *cli) printGuide(link token.Secret, procoreURL, dir string, every time.Duration) {
	user := procoretest.DefaultUser()
	fmt.Fprintf(c.stdout, `tokenturn demo: everything runs on this machine; you need no Procore account.

1. Open this link in a browser and press the button:

     %s

2. Sign in at the stand-in for Procore (%s) and allow access:

     email     %s
     password  %s

3. Watch the rotations here. In another terminal, print the current access token:

     %s --data %s token print %s

Access tokens live %v here (90 minutes at Procore). tokenturn looks for due connections
every %v. Press Ctrl-C to end the demo.

`, link.Reveal(), procoreURL, user.Login, user.Password, shellWord(thisProgram()), shellWord(dir),
		demoConnection, 4*every, every)
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

// demoReporter prints a short line for each change of a connection.
type demoReporter struct {
	mu  sync.Mutex
	out io.Writer
}

func (n *demoReporter) print(report rotation.Report) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range report.Connections {
		switch r.Outcome {
		// nothing has changed
		case rotation.Fresh, rotation.Busy, rotation.Deferred, rotation.NotFound:
		case rotation.Rotated, rotation.Published, rotation.Recovered:
			fmt.Fprintf(n.out, "%s  %s  %-9s  generation %d, access token valid until %s\n", clock(time.Now()), r.Connection,
				r.Outcome, r.Generation, clock(r.ExpiresAt))
		default:
			fmt.Fprintf(n.out, "%s  %s  %s  %s\n", clock(time.Now()), r.Connection, r.Outcome, r.Detail)
		}
	}
}

func clock(t time.Time) string { return t.Local().Format(time.TimeOnly) }
