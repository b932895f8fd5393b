package config

import (
	"net/url"
	"slices"

	"github.com/caarlos0/env/v11"
)

// Setting is a variable as a program has it.
type Setting struct {
	Name string
	// Value is the text, without credentials. It is empty if the setting is not set and has
	// no default, or if the value is not valid: a wrong variable may contain a secret.
	Value string
	// Set reports whether the variable is set; otherwise Value is the default.
	Set bool
	// Valid reports whether the setting accepts the value.
	Valid bool
}

// local lists the variables that the embedded store uses.
var local = []string{"RETURN_ORIGINS", "CONCURRENCY", "REDEEM_RATE", "REDEEM_TIMEOUT", "LEASE", "QUIET", "PROXY"}

// Describe lists the settings of a program, in order of documentation, also if Read
// reports problems with them.
func Describe(program Program, environ []string) []Setting {
	values, all := env.ToMap(environ), []Setting{}
	for _, f := range fields() {
		name := f.Tag.Get("env")
		if program == Local && !slices.Contains(local, name) {
			continue
		}
		s := Setting{Name: prefix + name, Value: f.Tag.Get("envDefault"), Valid: true}
		if value := values[prefix+name]; value != "" {
			s.Value, s.Set, s.Valid = value, true, wellFormed(f, value)
		}
		switch {
		case !s.Valid:
			s.Value = ""
		case f.Name == "Proxy":
			s.Value = withoutCredentials(s.Value)
		case f.Name == "Stack" && !s.Set:
			s.Value = values[prefix+"TABLE"]
		}
		all = append(all, s)
	}
	return all
}

// withoutCredentials is a proxy's URL without user name and password.
func withoutCredentials(proxy string) string {
	u, err := url.Parse(proxy)
	if err != nil || u.User == nil {
		return proxy
	}
	return u.Scheme + "://[redacted]@" + u.Host
}
