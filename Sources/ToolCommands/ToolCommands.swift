// ToolCommands: `mkcomposefs` and `composefs-info`, the names under which scripts know the C tools of composefs, as names of the program
// (composefs 1.0.8, tools/mkcomposefs.c and tools/composefs-info.c).
//
// Options, standard output and exit statuses are those of the C tools; messages are our own. Digests are SHA-256, as there.
//
// - `ComposefsTools` finds the tool that the process was called as, and runs it.
// - `ToolOptions` splits arguments as getopt_long(3) does.
// - `MakeComposefs` makes an image of a directory or a dumpfile; `DigestStore` takes the contents of the files.
// - `ImageInformation` prints what is in images; `ImageText` are its lines.

package import ComposefsBytes
package import ComposefsCommandSupport
import ComposefsLinuxSystem

/// The tools by their names.
package enum ComposefsTools {
    private static let tools: [(name: ByteString, run: @Sendable ([ByteString]) throws -> Void)] = [
        ("mkcomposefs", { try MakeComposefs.run($0) }), ("composefs-info", { try ImageInformation.run($0) }),
    ]

    /// The rights of the tools, for the table of README.md.
    package static var rights: [(name: String, rights: CommandRights)] {
        [("mkcomposefs", MakeComposefs.rights), ("composefs-info", ImageInformation.rights)]
    }

    /// Runs the tool that the process is, by its name or with the tool's name as its first argument.
    ///
    /// - Parameter all: the process's arguments, its name first.
    /// - Returns: the exit status, 0 or 1; nil if the process is none of the tools.
    package static func run(_ all: [ByteString]) -> Int32? {
        let name = all.first.map { FileDescriptor.split($0).name }
        if let tool = tools.first(where: { $0.name == name }) { return run(tool.name, tool.run, Array(all.dropFirst())) }
        guard all.count > 1, let tool = tools.first(where: { $0.name == all[1] }) else { return nil }
        return run(tool.name, tool.run, Array(all.dropFirst(2)))
    }

    private static func run(_ name: ByteString, _ body: ([ByteString]) throws -> Void, _ arguments: [ByteString]) -> Int32 {
        do {
            try body(arguments)
            try Output.flush()
            return 0
        } catch {
            // What was found before is printed, as the C tools do.
            try? Output.flush()
            Output.fault("\(name): \(error)")
            return 1
        }
    }
}

/// Why a tool failed.
struct ToolError: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }

    /// Arguments that are wrong, with the usage line.
    static func usage(_ message: String, _ usage: String) -> ToolError { ToolError(message + "\n" + usage) }
}
