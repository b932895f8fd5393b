//go:build conformance

package conformance

import (
	"encoding/json"
	"os/exec"
)

// operate runs the operator's command on this installation's stores and
// returns what it printed on stdout. What it says on stderr is kept as log.
func (in *installation) operate(arguments ...string) []byte {
	in.t.Helper()
	cmd := exec.CommandContext(in.t.Context(), built(in.t, buildCommand), append([]string{"--store", "aws", "--json"}, arguments...)...)
	cmd.Env = osVariables()
	for name, value := range in.variables(keyOfOperator) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stderr = &in.logs
	out, err := cmd.Output()
	if err != nil {
		in.t.Fatalf("tokenturn %q: %v\n%s\n%s", arguments, err, out, in.logs.tail(2000))
	}
	return out
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
