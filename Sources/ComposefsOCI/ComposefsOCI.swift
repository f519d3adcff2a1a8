// ComposefsOCI: the library's interface for programs. One import provides it together with all modules that it uses (Exports.swift).
//
// The module connects the others and implements no format, protocol or rule of the repository itself. It parses no command line and prints
// nothing; the command does.
//
// - `Store` is an open repository. It pulls, pushes, copies, mounts, serves, checks, prunes and collects garbage.
// - `Registry` is a store with a platform and credentials for pulls; `RunningPull` is a pull with its events and its result.
// - `ServedImage` is an image that this process serves with FUSE.
// - `Cancelling.swift` runs blocking work for async callers. A blocking and an async form of a call share one name, and `Cancellation` in
//   the options ends both.
