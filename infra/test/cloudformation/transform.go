package cloudformation

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed transform.py
var transformer string

// Transform reads the SAM template at path and makes of it what AWS would deploy. SAM
// wants code in S3; here its key is the directory that CodeUri names. It needs Python,
// and installs aws-sam-translator into build/venv beside the template if it has to.
func Transform(ctx context.Context, path string) (map[string]any, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	template, err := Parse(content)
	if err != nil {
		return nil, err
	}
	resources, _ := template["Resources"].(map[string]any)
	for _, r := range resources {
		properties, _ := r.(map[string]any)["Properties"].(map[string]any)
		if uri, ok := properties["CodeUri"].(string); ok {
			properties["CodeUri"] = "s3://local/" + uri
		}
	}
	input, err := json.Marshal(template)
	if err != nil {
		return nil, err
	}
	python, err := pythonWithSAM(ctx, filepath.Join(filepath.Dir(path), "build", "venv"))
	if err != nil {
		return nil, err
	}
	var output, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, python, "-c", transformer)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &output, &problems
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("translating %s with aws-sam-translator: %w\n%s", path, err, problems.Bytes())
	}
	return FromJSON(output.Bytes())
}

// FromJSON reads JSON and keeps numbers as they are written.
func FromJSON(text []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var value map[string]any
	err := d.Decode(&value)
	return value, err
}

// pythonWithSAM is the python3 on PATH if it has aws-sam-translator, which comes
// with cfn-lint, else that of a virtual environment that is made for it.
func pythonWithSAM(ctx context.Context, venv string) (string, error) {
	has := func(python string) bool {
		return exec.CommandContext(ctx, python, "-c", "import samtranslator.translator.translator").Run() == nil
	}
	own := filepath.Join(venv, "bin", "python")
	for _, python := range []string{"python3", own} {
		if has(python) {
			return python, nil
		}
	}
	_ = exec.CommandContext(ctx, "python3", "-m", "venv", venv).Run()
	out, err := exec.CommandContext(ctx, own, "-m", "pip", "install", "--quiet",
		"aws-sam-translator>=1.100,<2").CombinedOutput()
	if err != nil || !has(own) {
		return "", errors.Join(errors.New("aws-sam-translator cannot be installed here; install it yourself for the "+
			"python3 on PATH: pip install aws-sam-translator"), err, errors.New(string(out)))
	}
	return own, nil
}
