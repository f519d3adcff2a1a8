import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct BootImageCommand: ParsableCommand, ConfinedCommand, ImageCommand {
    static var rights: CommandRights? { .writing() }

    static let configuration = CommandConfiguration(
        commandName: "image", abstract: "Make an image's EROFS image for booting, record it with the image, and print its identifier.",
        discussion: """
            In the image for booting, /boot and /sysroot are empty, and files have the labels of the image's own SELinux policy. What lies in \
            /boot can so be changed without another identifier: a unified kernel image that names it can be part of the same image. Recorded \
            images for booting are kept as long as the image.
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Option(help: ArgumentHelp("Which extended attributes are kept.", valueName: "allowlist-only|keep-user-xattrs"))
    var xattrs: XattrMode?

    @Option(
        help: ArgumentHelp(
            "Find the extended attributes and the EROFS format that give this identifier, and record that image.", valueName: "hex"))
    var find: String?

    @Flag(help: "Remove the record of all images for booting. `cfsoci gc` then removes those that are not in use.")
    var remove = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    var namedImage: ByteString? { image }

    func validate() throws {
        guard !(remove && find != nil) else { throw ValidationError("--find and --remove exclude each other") }
        guard xattrs == nil || !remove && find == nil else {
            throw ValidationError("--xattrs applies only when an image is made: --find tries all, and --remove removes all")
        }
        _ = try find.map { try ObjectID(expected: $0, option: "--find") }
    }

    func run() throws {
        let store = try global.openStore(Self.rights)
        if remove { return try RemovedBootImages(count: try store.removeBootImage(image)).show(asJSON: json) }
        let made =
            if let find {
                try store.findMatchingBootImage(image, try ObjectID(expected: find, option: "--find"))
            } else {
                try store.generateBootImage(image, (xattrs ?? .allowlistOnly).filtering)
            }
        try BootImageReport(image: made, isFound: find != nil).show(asJSON: json)
    }
}

struct BootImageReport: CommandReport {
    var image: BootImage
    /// Whether the mode and format are a result.
    var isFound: Bool

    var lines: [String] {
        isFound ? ["\(image.id.hex)  \(image.filtering.rawValue)  format \(image.version.rawValue)"] : [image.id.hex]
    }

    var json: JSONValue { image.json }
}

private struct RemovedBootImages: CommandReport {
    var count: Int

    var lines: [String] { ["Removed \(count) \(count == 1 ? "record" : "records")"] }

    var json: JSONValue { ["bootImagesRemoved": .count(count)] }
}
