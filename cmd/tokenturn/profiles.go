package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// profiles is the file config.toml: installations in AWS by names that the operator gives.
type profiles struct {
	path string
	// Use is the profile that counts without --use; empty: none.
	Use      string             `toml:"use,omitempty"`
	Profiles map[string]profile `toml:"profiles,omitempty"`
}

// profile says where an installation in AWS is. It has no secret.
type profile struct {
	Stack      string `toml:"stack"`
	Region     string `toml:"region,omitempty"`
	AWSProfile string `toml:"aws_profile,omitempty"`
}

// profilesHeader begins the file, which a person may edit too.
const profilesHeader = "# Profiles of the tokenturn command. `tokenturn profile` rewrites this file without your " +
	"comments.\n\n"

var (
	profileName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	stackName   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,127}$`)
	regionName  = regexp.MustCompile(`^[a-z]{2,}(-[a-z0-9]+)+$`)
)

// check reports what AWS would not accept.
func (p profile) check() error {
	switch {
	case p.Stack == "":
		return errors.New("has no stack")
	case !stackName.MatchString(p.Stack):
		return fmt.Errorf("has the stack %q, which is not the name of a CloudFormation stack", p.Stack)
	case p.Region != "" && !regionName.MatchString(p.Region):
		return fmt.Errorf("has the region %q, which is not the name of an AWS region, such as us-east-1", p.Region)
	}
	return nil
}

// parseProfile accepts names of the form that connections' names have.
func parseProfile(name string) (string, error) {
	if !profileName.MatchString(name) {
		return "", fmt.Errorf("%q is not the name of a profile; use lowercase letters, digits and hyphens, such as acme",
			name)
	}
	return name, nil
}

// profilesPath is the path of config.toml, by the XDG Base Directory Specification; empty
// if neither XDG_CONFIG_HOME nor the home directory is known.
func (c *cli) profilesPath() string {
	if dir := c.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tokenturn", "config.toml")
	}
	if home := c.homeDir(); home != "" {
		return filepath.Join(home, ".config", "tokenturn", "config.toml")
	}
	return ""
}

// readProfiles reads config.toml. Without the file there are no profiles.
func (c *cli) readProfiles() (profiles, error) {
	all := profiles{path: c.profilesPath(), Profiles: map[string]profile{}}
	if all.path == "" {
		return all, nil
	}
	content, err := os.ReadFile(all.path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return all, fmt.Errorf("reading the profiles: %w", err)
	}
	if err := toml.NewDecoder(bytes.NewReader(content)).DisallowUnknownFields().Decode(&all); err != nil {
		return all, &exitError{usage, fmt.Errorf("%s cannot be read; correct it:\n%s", all.path, inLines(err))}
	}
	for _, name := range slices.Sorted(maps.Keys(all.Profiles)) {
		if _, err := parseProfile(name); err != nil {
			return all, exitf(usage, "%s: %w", all.path, err)
		}
		if err := all.Profiles[name].check(); err != nil {
			return all, exitf(usage, "%s: the profile %s %w", all.path, name, err)
		}
	}
	return all, nil
}

// inLines says for each problem in which line it is.
func inLines(err error) string {
	var lines []string
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		for i := range strict.Errors {
			line, _ := strict.Errors[i].Position()
			lines = append(lines, fmt.Sprintf("line %d: %s is not a key of this file; the keys are use, and stack, region "+
				"and aws_profile of [profiles.NAME]", line, strings.Join(strict.Errors[i].Key(), ".")))
		}
		return strings.Join(lines, "\n")
	}
	if e, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := e.Position()
		return fmt.Sprintf("line %d, column %d: %s", line, column, strings.TrimPrefix(e.Error(), "toml: "))
	}
	return strings.TrimPrefix(err.Error(), "toml: ")
}

// write replaces config.toml as a whole, so that another process reads the old file or the new.
func (p profiles) write() (err error) {
	if p.path == "" {
		return exitf(usage, "none of XDG_CONFIG_HOME, HOME and USERPROFILE is set, so there is no place for profiles")
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the profiles to %s: %w", p.path, err)
		}
	}()
	content, err := toml.Marshal(p)
	if err != nil {
		return err
	}
	target := p.path
	if linked, err := filepath.EvalSymlinks(target); err == nil {
		target = linked // people link such files from elsewhere
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(target), ".config.toml-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = temporary.WriteString(profilesHeader + string(content))
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), target)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}

// inUse returns the profile in use. A person who edits the file can name one that does not exist; only
// commands that work on it report that, so that `profile use` can correct it.
func (p profiles) inUse() (profile, error) {
	found, there := p.Profiles[p.Use]
	if !there {
		return profile{}, exitf(usage, "%s: use names the profile %q, which is not in the file; choose another with: "+
			"tokenturn profile use NAME\nor choose none with: tokenturn profile use --none", p.path, p.Use)
	}
	return found, nil
}

// named returns a profile that must exist.
func (p profiles) named(name string) (profile, error) {
	found, there := p.Profiles[name]
	if !there {
		near := nearest(name, slices.Sorted(maps.Keys(p.Profiles)))
		return profile{}, exitf(notFound, "there is no profile %s%s; list the profiles with: tokenturn profile list\n"+
			"or add it with: tokenturn profile add %[1]s --stack STACK --region REGION", name, didYouMean("", near))
	}
	return found, nil
}
