// CommandSupport: what the commands share.
//
// - Options: option groups, and how they open the repository.
// - Lookup: the image or file that an argument refers to.
// - Terminal: arguments as bytes, standard output and standard error, results as text or JSON, questions.
// - Progress: the events of pulls, pushes and copies as a display, as lines, or as JSON.
//
// The module has no subcommands and no formats. It calls the library and LinuxSystem, never the C library.
