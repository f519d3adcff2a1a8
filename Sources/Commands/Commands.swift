// Commands: the subcommands of `cfsoci`, one file for each, in folders by subject.
//
// A command parses arguments, calls the library once or twice, and prints a `CommandReport` as text or JSON. Errors of the library carry
// values; Support/Hints.swift and Support/ImageHints.swift add which command or option helps.
//
// A command states its name in its configuration: the parser would make one from the name of the type, which takes longer than many a command.
