//go:build conformance

package conformance

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// buildDir is where the programs under test are built, once for all tests.
var buildDir string

// TestMain lets more tests run at once than there are processors: most of the
// time they wait for leases and tokens to run out.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	var err error
	if buildDir, err = os.MkdirTemp("", "tokenturn-conformance-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(buildDir)
	whole := flag.Lookup("test.run").Value.String() == ""
	if judged(whole) {
		code = 1
	}
	os.Exit(code)
}

var (
	buildRotate   = sync.OnceValues(func() (string, error) { return build("functions/rotate", "bootstrap") })
	buildCallback = sync.OnceValues(func() (string, error) { return build("functions/callback", "bootstrap") })
	buildCommand  = sync.OnceValues(func() (string, error) { return build("cmd/tokenturn", "tokenturn") })
)

// build compiles a program of this module for this machine, with the tag that
// the deployed functions are built with.
func build(program, name string) (string, error) {
	path := filepath.Join(buildDir, program, name)
	out, err := exec.Command("go", "build", "-tags", "lambda.norpc", "-o", path, "../../../"+program).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", program, err, out)
	}
	return path, nil
}

func built(t *testing.T, program func() (string, error)) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
