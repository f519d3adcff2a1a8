// ArchiveCommands: the subcommands that bring images and their files in and out as archives and directories, one file for each.
package import ComposefsBytes
package import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

extension Load: ConfinedCommand { package static var rights: CommandRights? { .writing(reads: "source") } }
/// The repository too: it keeps how a layer was packed.
extension Save: ConfinedCommand { package static var rights: CommandRights? { .writing(writes: "directory of the archive") } }

extension Unpack: ConfinedCommand { package static var rights: CommandRights? { .extracting } }
extension CopyOut: ConfinedCommand { package static var rights: CommandRights? { .extracting } }

/// Writes the files of an image to standard output as one tar archive.
package func exportFiles(of image: ByteString, _ global: GlobalOptions) throws {
    try refuseTerminal()
    let store = try global.openStore(.reading(), readOnly: true)
    try withExtractionHints {
        warn(ofSockets: try store.images.fileTree(of: image).writeTar { try writeToOutput($0) }, global)
    }
}

/// Writes to standard output.
///
/// - Throws: `CommandError`.
func writeToOutput(_ bytes: UnsafeRawBufferPointer) throws {
    if let fault = FileDescriptor.writeAll(bytes, to: StandardStream.output.rawValue) {
        throw CommandError("write to standard output: \(fault)")
    }
}

/// Refuses a terminal as the destination of an archive.
package func refuseTerminal() throws {
    guard !Output.outputIsTerminal else {
        throw CommandError("standard output is a terminal; redirect it to a file or a pipe", code: .usage)
    }
}
