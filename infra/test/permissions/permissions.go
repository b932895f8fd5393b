// Package permissions knows which AWS calls a program of this module can make,
// and which IAM actions calls need, so that roles can be held against both.
package permissions

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Reachable lists the calls that a program can make, such as
// "secretsmanager:GetSecretValue". It builds the program as for Lambda and reads
// which methods of AWS clients the linker kept: those that some code reaches, and
// no others. dir is a scratch directory; program a package's path.
func Reachable(dir, program string) ([]string, error) {
	overlay, err := withoutMethodsByName(dir)
	if err != nil {
		return nil, err
	}
	binary := filepath.Join(dir, filepath.Base(program))
	build := exec.Command("go", "build", "-overlay", overlay, "-tags", "lambda.norpc", "-o", binary, program)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building %s: %w\n%s", program, err, out)
	}
	file, err := elf.Open(binary)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	symbols, err := file.Symbols()
	if err != nil {
		return nil, err
	}
	var calls []string
	for _, symbol := range symbols {
		if m := clientMethod.FindStringSubmatch(symbol.Name); m != nil && m[2] != "Options" {
			calls = append(calls, m[1]+":"+m[2])
		}
	}
	slices.Sort(calls)
	return slices.Compact(calls), nil
}

var clientMethod = regexp.MustCompile(`^github\.com/aws/aws-sdk-go-v2/service/([a-z0-9]+)\.\(\*Client\)\.([A-Z]\w*)$`)

// withoutMethodsByName takes from text/template the one place where it calls a
// method by a name that is data. With it the linker must keep every method of
// every type, whereas what our templates are given are plain values.
func withoutMethodsByName(dir string) (overlay string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "text", "template", "exec.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const byName = "ptr.MethodByName(fieldName)"
	if n := strings.Count(string(source), byName); n != 1 {
		return "", fmt.Errorf("%s has %s %d times instead of once", original, byName, n)
	}
	replaced := filepath.Join(dir, "exec.go")
	if err := os.WriteFile(replaced, []byte(strings.Replace(string(source), byName, "(reflect.Value{})", 1)),
		0o600); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: replaced}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}

// Actions are the IAM actions that a call needs, where they are not called the
// same: a transaction needs those of its parts, tags of a new secret have an action
// of their own, and GetCallerIdentity needs none.
// (Service Authorization Reference, DynamoDB and Secrets Manager.)
func Actions(call string) []string {
	switch call {
	case "dynamodb:TransactWriteItems":
		return []string{"dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}
	case "secretsmanager:CreateSecret":
		return []string{"secretsmanager:CreateSecret", "secretsmanager:TagResource"}
	case "sts:GetCallerIdentity":
		return nil
	}
	return []string{call}
}
