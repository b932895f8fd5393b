// Package release says which release of tokenturn a program was built from.
package release

import "runtime/debug"

// Version is the module version of the build, such as v1.2.3, and "dev" if the build
// has none.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
