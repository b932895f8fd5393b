//go:build conformance

package conformance

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tokenturn/tokenturn/infra/test/markdown"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
)

// recipe returns the one block of code of the examples' page that contains a text.
func recipe(t *testing.T, language, contains string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(examples(t, ""), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks, _ := markdown.Code(string(page))
	var found []string
	for _, block := range blocks {
		if block.Language == language && strings.Contains(block.Text, contains) {
			found = append(found, block.Text)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d blocks of %s contain %q", len(found), language, contains)
	}
	return found[0]
}

// TestRecipes carries out what the recipes on the examples' page say, with `tokenturn serve` in the
// place of AWS.
func TestRecipes(t *testing.T) {
	t.Parallel()
	server := procoretest.New()
	t.Cleanup(server.Close)
	s := newSite(t)
	var app procoretest.App
	s.serve(server.URL, func(publicURL string) procoretest.App {
		app = server.NewApp(publicURL + "/callback/demo")
		return app
	})
	pair, err := server.Issue(app.ClientID, procoretest.DefaultUser().Login)
	if err == nil {
		_, err = s.run([]byte(pair.RefreshToken.Reveal()), "connection", "import", "demo/acme")
	}
	if err != nil {
		t.Fatal(err)
	}
	readerToken, err := os.ReadFile(filepath.Join(s.data, "reader-token"))
	if err != nil {
		t.Fatal(err)
	}
	library, err := os.ReadFile(filepath.Join(examples(t, "bash"), "procore.sh"))
	if err != nil {
		t.Fatal(err)
	}
	// works runs a command in a directory with the library, and wants the answer of the API.
	works := func(t *testing.T, dir string, env []string, command ...string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "procore.sh"), library, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Dir = dir
		cmd.Env = append(append(osVariables(), "PATH="+tools(t).path, "AWS_PAGER=", "AWS_CONFIG_FILE="+os.DevNull,
			"AWS_SHARED_CREDENTIALS_FILE="+os.DevNull), env...)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), procoretest.DefaultUser().Login) {
			t.Errorf("%q: %v\n%s", command, err, out)
		}
	}

	t.Run("GitHub Actions", func(t *testing.T) {
		var workflow struct {
			Jobs map[string]struct {
				Steps []struct {
					Run string
					Env map[string]string
				}
			}
		}
		if err := yaml.Unmarshal([]byte(recipe(t, "yaml", "actions/checkout")), &workflow); err != nil {
			t.Fatal(err)
		}
		steps := workflow.Jobs["report"].Steps
		last := steps[len(steps)-1]
		if last.Env["PROCORE_CONNECTION"] == "" {
			t.Error("the step names no connection")
		}
		works(t, t.TempDir(), []string{"AWS_ENDPOINT_URL_SECRETS_MANAGER=" + s.publicURL + "/secretsmanager",
			"AWS_REGION=local", "AWS_DEFAULT_REGION=local", // the action sets both
			"AWS_ACCESS_KEY_ID=tokenturn", "AWS_SECRET_ACCESS_KEY=tokenturn",
			"AWS_SESSION_TOKEN=" + strings.TrimSpace(string(readerToken)), "PROCORE_CONNECTION=demo/acme"},
			"bash", "-e", "-c", last.Run)
	})

	t.Run("systemd", func(t *testing.T) {
		unit := recipe(t, "ini", "ExecStart=")
		var env []string
		command := ""
		for line := range strings.Lines(unit) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch name {
			case "Environment":
				env = append(env, strings.Fields(strings.ReplaceAll(value, "http://localhost:8080", s.publicURL))...)
			case "ExecStart":
				command = strings.ReplaceAll(value, "$$", "$")
			}
		}
		dir := t.TempDir()
		program := filepath.Join(dir, "procore-report")
		script := "#!/bin/bash\nsource ./procore.sh\nprocore /rest/v1.0/me\n"
		if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "reader-token"), readerToken, 0o600); err != nil {
			t.Fatal(err)
		}
		works(t, dir, append(env, "CREDENTIALS_DIRECTORY="+dir, "PROCORE_CONNECTION=demo/acme"), "bash", "-c",
			strings.ReplaceAll(command, "/usr/local/bin/procore-report", program))
		if _, err := exec.LookPath("systemd-analyze"); err == nil {
			service, timer := filepath.Join(dir, "procore-report.service"), filepath.Join(dir, "procore-report.timer")
			if err := os.WriteFile(service, []byte(unit), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(timer, []byte(recipe(t, "ini", "OnCalendar=")), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("systemd-analyze", "verify", service, timer).CombinedOutput(); err != nil {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
		}
	})

	t.Run("ECS", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "aws", "ecs", "register-task-definition", "--cli-input-json",
			recipe(t, "json", "requiresCompatibilities"), "--query", "taskDefinition.family", "--output", "text")
		cmd.Env = append(osVariables(), "PATH="+tools(t).path, "AWS_PAGER=", "AWS_REGION=us-east-1",
			"AWS_DEFAULT_REGION=us-east-1", "AWS_ENDPOINT_URL="+startCloud(t).url, "AWS_ACCESS_KEY_ID=test",
			"AWS_SECRET_ACCESS_KEY=test",
			"AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "procore-report" {
			t.Errorf("%v\n%s", err, out)
		}
	})

	t.Run("External Secrets Operator", func(t *testing.T) {
		var external struct {
			Spec struct {
				Data []struct {
					RemoteRef struct{ Key, Property, Version string } `yaml:"remoteRef"`
				}
			}
		}
		_, second, _ := strings.Cut(recipe(t, "yaml", "external-secrets.io"), "\n---\n")
		if err := yaml.Unmarshal([]byte(second), &external); err != nil || len(external.Spec.Data) != 1 {
			t.Fatalf("%v %+v", err, external)
		}
		ref := external.Spec.Data[0].RemoteRef
		out, err := exec.CommandContext(t.Context(), "curl", "-s", "-H", "X-Aws-Parameters-Secrets-Token: "+
			strings.TrimSpace(string(readerToken)), s.publicURL+"/secretsmanager/get?versionStage="+ref.Version+"&secretId="+
			strings.Replace(ref.Key, "production/acme", "demo/acme", 1)).Output()
		var answer struct{ SecretString string }
		document := map[string]any{}
		if err != nil || json.Unmarshal(out, &answer) != nil ||
			json.Unmarshal([]byte(answer.SecretString), &document) != nil || document[ref.Property] == nil {
			t.Errorf("%v: there is no such property at %+v", err, ref)
		}
	})
}
