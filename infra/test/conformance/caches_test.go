//go:build conformance

package conformance

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/tokensource/tokensourcetest"
)

// TestPowertoolsGoRoundTheirCache reads a secret as ../../examples/README.md advises those who
// have Powertools for AWS Lambda: kept for a minute, and read again after a rotation.
func TestPowertoolsGoRoundTheirCache(t *testing.T) {
	t.Parallel()
	directory, err := filepath.Abs("../../../build/powertools")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(directory); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(directory, os.DirFS("powertools")); err != nil {
		t.Fatal(err)
	}
	install := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	install.Dir = directory
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm: %v\n%s", err, out)
	}

	in := &installation{t: t, cloud: startCloud(t), env: map[string]string{}}
	v := secrets{tokensourcetest.New("peer/acme"), t, in.secretsOf("Test")}
	const secret = "tokenturn/connection/peer/acme"
	value, err := v.Document().Encode()
	in.must(err)
	_, err = v.client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(secret),
		SecretString: aws.String(value.Reveal())})
	in.must(err)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	reader := exec.CommandContext(ctx, "node", "read.mjs", secret)
	reader.Dir, reader.Env, reader.Stderr = directory, in.readerEnv("Powertools"), os.Stderr
	stdin, err := reader.StdinPipe()
	in.must(err)
	stdout, err := reader.StdoutPipe()
	in.must(err)
	in.must(reader.Start())
	answers := bufio.NewReader(stdout)
	read := func(how string) string {
		fmt.Fprintln(stdin, how)
		answer, err := answers.ReadString('\n')
		in.must(err)
		return strings.TrimSpace(answer)
	}
	before := fmt.Sprint(v.Document().Generation)
	if got := read("kept"); got != before {
		t.Errorf("generation %s, want %s", got, before)
	}
	v.Rotate()
	v.publish()
	after := fmt.Sprint(v.Document().Generation)
	for _, c := range [][2]string{{"kept", before}, {"forced", after}, {"kept", after}} {
		if got := read(c[0]); got != c[1] {
			t.Errorf("%s: generation %s, want %s", c[0], got, c[1])
		}
	}
	in.must(stdin.Close())
	in.must(reader.Wait())
}
