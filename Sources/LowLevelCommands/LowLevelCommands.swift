// LowLevelCommands: the subcommands that work with parts of images: layers, directories, EROFS images and streams.
package import ComposefsBytes
package import ComposefsCommandSupport

// What each command keeps while it parses bytes of others, as in Commands/Support/Confined.swift.

extension Layer: ConfinedCommand { package static var rights: CommandRights? { .reading() } }
extension Dump: ConfinedCommand { package static var rights: CommandRights? { .reading() } }
extension ComputeID: ConfinedCommand { package static var rights: CommandRights? { .reading(reads: "directory of `--path`") } }
extension ImportLayer: ConfinedCommand { package static var rights: CommandRights? { .writing() } }
extension CreateImage: ConfinedCommand { package static var rights: CommandRights? { .writing(reads: "directory") } }
extension CreateDumpfile: ConfinedCommand { package static var rights: CommandRights? { .reading(reads: "directory") } }
extension ImageObjects: ConfinedCommand { package static var rights: CommandRights? { .reading() } }
extension Stream.CatStream: ConfinedCommand { package static var rights: CommandRights? { .reading() } }

// Errors of these commands name the image.

extension ComputeID: ImageCommand { package var namedImage: ByteString? { image } }
extension Dump: ImageCommand { package var namedImage: ByteString? { image } }
