//go:build conformance

package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
)

// operate runs the operator's command on this installation's stores and
// returns what it printed on stdout. What it says on stderr is kept as log.
func (in *installation) operate(arguments ...string) []byte {
	in.t.Helper()
	return in.operateWith(nil, arguments...)
}

// operateWith is operate with something on standard input.
func (in *installation) operateWith(input []byte, arguments ...string) []byte {
	in.t.Helper()
	cmd := in.command(arguments...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &in.logs
	out, err := cmd.Output()
	if err != nil {
		in.t.Fatalf("tokenturn %q: %v\n%s\n%s", arguments, err, out, in.logs.tail(2000))
	}
	return out
}

// operateInVain is operate for what must not succeed. It returns what was said,
// and the exit code.
func (in *installation) operateInVain(arguments ...string) (said string, code int) {
	in.t.Helper()
	out, err := in.command(arguments...).CombinedOutput()
	in.logs.Write(out)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	}
	in.t.Fatalf("tokenturn %q succeeded or did not start (%v): %s", arguments, err, out)
	return "", 0
}

// command is the operator's command on this installation's stores.
func (in *installation) command(arguments ...string) *exec.Cmd {
	in.t.Helper()
	cmd := exec.CommandContext(in.t.Context(), built(in.t, buildCommand), append([]string{"--store", "aws", "--json"},
		arguments...)...)
	cmd.Env = osVariables()
	for name, value := range in.variables(keyOfOperator) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// invite makes an invitation and, if need be, the connection's pending row.
func (in *installation) invite(connection string) string {
	in.t.Helper()
	out := in.operate("connection", "invite", connection)
	var answer struct {
		Connection string `json:"connection"`
		URL        string `json:"url"`
	}
	if err := json.Unmarshal(out, &answer); err != nil || answer.Connection != connection || answer.URL == "" {
		in.t.Fatalf("connection invite answers %s (%v), want its connection and url", out, err)
	}
	return answer.URL
}
