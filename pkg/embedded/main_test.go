package embedded_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The tests run this binary again as separate processes. children are the functions of such
// a process; it gets the store's directory and reports on standard output.
var children = map[string]func(ctx context.Context, dir string) error{
	"count": countInRecord,
	"save":  saveResponsesForever,
	"open":  openAndClose,
}

func TestMain(m *testing.M) {
	child, found := children[os.Getenv("EMBEDDED_TEST_CHILD")]
	if !found {
		os.Exit(m.Run())
	}
	if err := child(context.Background(), os.Getenv("EMBEDDED_TEST_DIR")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child prepares a process that does what name says in dir. It stays the user
// it is, except that root, for which file modes do not hold, becomes nobody on request.
func child(t *testing.T, name, dir string, unprivileged bool) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "EMBEDDED_TEST_CHILD="+name, "EMBEDDED_TEST_DIR="+dir)
	if unprivileged && os.Geteuid() == 0 {
		if runtime.GOOS == "linux" { // where nobody may not enter the directory that the binary lies in
			cmd.Path = "/proc/self/exe"
		}
		asNobody(cmd)
	}
	return cmd
}

// failure runs cmd, which must fail, and returns its output.
func failure(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil {
		t.Fatalf("the process succeeded; stderr: %s", &stderr)
	}
	return stderr.String()
}

func openAndClose(ctx context.Context, dir string) error {
	s, err := embedded.Open(ctx, dir)
	if err != nil {
		return err
	}
	return s.Close()
}

func openStore(t *testing.T, dir string) *embedded.Store {
	t.Helper()
	s, err := embedded.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var acme = token.Connection{Environment: "production", Name: "acme"}

func parseApplication(environment string, value token.Secret) (rotation.Application, error) {
	id, secret, found := strings.Cut(value.Reveal(), ":")
	if !found {
		return rotation.Application{}, fmt.Errorf("no colon")
	}
	return rotation.Application{Environment: environment, ClientID: id, ClientSecret: token.NewSecret(secret)}, nil
}
