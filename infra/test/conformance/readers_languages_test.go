//go:build conformance

package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// program is a reader in another language: the example of ../../examples, and loops
// round it that make requests for every connection until standard input ends
// and then print a tally.
type program struct {
	language string
	command  []string
}

// The loops. Their arguments are the directory of the example, the prefix of
// secret names, the pause in seconds, how many for each connection, and the connections.
const (
	pythonLoop = `
import json, sys, threading, time
directory, prefix, pause, each, *names = sys.argv[1:]
sys.path.insert(0, directory)
from procore import Connection

tally, lock, over = {"ok": 0, "failed": 0, "why": None}, threading.Lock(), threading.Event()

def loop(connection):
    while not over.is_set():
        try:
            status = connection.request("GET", "/rest/v1.0/me").status
        except Exception as reason:
            status = repr(reason)
        with lock:
            if status == 200:
                tally["ok"] += 1
            else:
                tally["failed"] += 1
                tally["why"] = status
        time.sleep(float(pause))

connections = [Connection(name, prefix) for name in names]
threads = [threading.Thread(target=loop, args=[c]) for c in connections for _ in range(int(each))]
for thread in threads: thread.start()
sys.stdin.read()
over.set()
for thread in threads: thread.join()
print(json.dumps(tally))
`
	bashLoop = `
directory=$1 PROCORE_PREFIX=$2 pause=$3 each=$4
shift 4
source "$directory/procore.sh"
over=$(mktemp -u)
loop() {
  local ok=0 failed=0
  PROCORE_CONNECTION=$1
  until [[ -e $over ]]; do
    if procore /rest/v1.0/me >/dev/null; then ((ok++)); else ((failed++)); fi
    sleep "$pause"
  done
  echo "$ok $failed"
}
for name in "$@"; do
  for ((i = 0; i < each; i++)); do loop "$name" </dev/null & done
done | awk '{ ok += $1; failed += $2 } END { printf "{\"ok\": %d, \"failed\": %d}\n", ok, failed }' &
cat >/dev/null
touch "$over"
wait
rm "$over"
`
	typescriptLoop = `
import { Connection } from "./procore.mjs";
const [, , , prefix, pause, each, ...names] = process.argv;
const tally = { ok: 0, failed: 0, why: null as unknown };
let over = false;

async function loop(connection: Connection) {
  while (!over) {
    let status: unknown;
    try {
      const answer = await connection.fetch("/rest/v1.0/me");
      await answer.arrayBuffer();
      status = answer.status;
    } catch (reason) {
      status = String(reason);
    }
    if (status === 200) tally.ok++;
    else { tally.failed++; tally.why = status; }
    await new Promise((resolve) => setTimeout(resolve, Number(pause) * 1000));
  }
}

const loops = names.map((name) => new Connection(name, prefix)).flatMap((c) => Array.from({ length: Number(each) }, () => loop(c)));
process.stdin.resume().on("end", () => (over = true));
await Promise.all(loops);
console.log(JSON.stringify(tally));
`
)

// otherReaders are the examples in the other languages.
func otherReaders(t *testing.T) []program {
	t.Helper()
	return []program{
		{"Python", []string{tools(t).python, "-c", pythonLoop, examples(t, "python")}},
		{"bash", []string{"bash", "-c", bashLoop, "bash", examples(t, "bash")}},
		{"TypeScript", []string{"node", compiled(t), "-"}},
	}
}

func examples(t *testing.T, language string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "examples", language))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// hammer runs the program in env until ctx ends. It reads the secrets of the connections, with
// names that begin with prefix, and writes its messages to log.
func (p program) hammer(ctx context.Context, env []string, prefix string, connections []string, pause time.Duration,
	log io.Writer) tally {
	each := readersEach / 2
	if p.language == "bash" {
		each = 1 // which costs a process for each request
	}
	arguments := append(p.command[1:len(p.command):len(p.command)], prefix,
		fmt.Sprint(pause.Seconds()), fmt.Sprint(each))
	cmd := exec.Command(p.command[0], append(arguments, connections...)...)
	cmd.Env = env
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(&said, log)
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return tally{Failed: 1, Why: err}
	}
	killer := time.AfterFunc(10*time.Minute, func() { _ = cmd.Process.Kill() })
	defer killer.Stop()
	<-ctx.Done()
	_ = stdin.Close()
	if err := cmd.Wait(); err != nil {
		return tally{Failed: 1, Why: fmt.Errorf("%s: %w", p.language, err)}
	}
	var result tally
	if err := json.NewDecoder(&out).Decode(&result); err != nil {
		return tally{Failed: 1, Why: fmt.Errorf("%s printed no tally: %w", p.language, err)}
	}
	if result.Why == nil && said.Len() > 0 {
		result.Why = said.String()
	}
	return result
}

// readerEnv is the environment of a reader: AWS and nothing of tokenturn's.
func (in *installation) readerEnv(language string) []string {
	return append(osVariables(), "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_ENDPOINT_URL="+in.cloud.url,
		"AWS_ACCESS_KEY_ID="+keyOf(language), "AWS_SECRET_ACCESS_KEY=test", "AWS_CONFIG_FILE="+os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE="+os.DevNull, "AWS_PAGER=", "PYTHONDONTWRITEBYTECODE=1", "PATH="+tools(in.t).path)
}

// toolbox is what the examples need of this machine.
type toolbox struct{ python, path string }

var findTools = sync.OnceValues(func() (toolbox, error) {
	found := toolbox{"python3", os.Getenv("PATH")}
	for _, each := range []string{"jq", "curl"} {
		if _, err := exec.LookPath(each); err != nil {
			return found, fmt.Errorf("the bash example needs %s; on Debian, as root: apt-get install %s", each, each)
		}
	}
	if exec.Command("python3", "-c", "import boto3").Run() == nil && exec.Command("aws", "--version").Run() == nil {
		return found, nil
	}
	venv, err := filepath.Abs("../../../build/readers")
	if err != nil {
		return found, err
	}
	found = toolbox{filepath.Join(venv, "bin", "python"), filepath.Join(venv, "bin") + ":" + found.path}
	for _, command := range [][]string{{"python3", "-m", "venv", venv}, {found.python, "-m", "pip", "install", "--quiet",
		"boto3", "awscli"}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return found, fmt.Errorf("the examples need boto3 and the AWS CLI, and %q cannot install them: %w\n%s", command, err,
				out)
		}
	}
	return found, nil
})

func tools(t *testing.T) toolbox {
	t.Helper()
	found, err := findTools()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// compile installs the TypeScript example's packages and compiles it, and returns the loop round it.
var compile = sync.OnceValues(func() (string, error) {
	if err := exec.Command("node", "-e", "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)").Run(); err != nil {
		return "", fmt.Errorf("the TypeScript example needs Node.js 20 or later (https://nodejs.org/en/download): %w", err)
	}
	directory, err := filepath.Abs("../../../build/node")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"package.json", "package-lock.json", "procore.mts"} {
		content, err := os.ReadFile(filepath.Join("..", "..", "examples", "typescript", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(directory, name), content, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(directory, "loop.mts"), []byte(typescriptLoop), 0o644); err != nil {
		return "", err
	}
	for _, command := range [][]string{
		{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"},
		{"npx", "--no-install", "tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node",
			"--skipLibCheck", "loop.mts", "procore.mts"},
	} {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = directory
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("the TypeScript example: %q: %w\n%s", command, err, out)
		}
	}
	return filepath.Join(directory, "loop.mjs"), nil
})

func compiled(t *testing.T) string {
	t.Helper()
	path, err := compile()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// readLines reads lines as they come.
func readLines(r io.Reader) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for scanner := bufio.NewScanner(r); scanner.Scan(); {
			if !yield(scanner.Text()) {
				return
			}
		}
	}
}
