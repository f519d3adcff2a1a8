// ArchiveCommands: the subcommands that bring images and their files in and out as archives and directories, one file for each.
import ComposefsBytes
package import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

extension Load: ConfinedCommand { package static var rights: CommandRights? { .writing(reads: "source") } }
/// The repository too: it keeps how a layer was packed.
extension Save: ConfinedCommand { package static var rights: CommandRights? { .writing(writes: "directory of the archive") } }

/// Writes to standard output.
///
/// - Throws: `CommandError`.
func writeToOutput(_ bytes: UnsafeRawBufferPointer) throws {
    if let fault = FileDescriptor.writeAll(bytes, to: StandardStream.output.rawValue) {
        throw CommandError("write to standard output: \(fault)")
    }
}

/// Refuses a terminal as the destination of an archive.
func refuseTerminal() throws {
    guard !Output.outputIsTerminal else {
        throw CommandError("standard output is a terminal; redirect it to a file or a pipe", code: .usage)
    }
}
