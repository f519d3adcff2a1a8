import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct BootEntries: ParsableCommand, ConfinedCommand, ImageCommand {
    static var rights: CommandRights? { .reading() }

    static let configuration = CommandConfiguration(
        commandName: "entries", abstract: "List what an image can boot.",
        discussion: """
            These are entries of a boot loader in /boot/loader/entries, unified kernel images and their addons (*.efi) in /boot/EFI/Linux, \
            /boot/loader/addons and /usr/lib/modules/*, kernels /usr/lib/modules/VERSION/vmlinuz with initramfs.img, and kernels \
            /boot/vmlinuz-VERSION with initrd.img-VERSION. What lies in /boot is not in the image for booting, so its identifier does not \
            depend on it: the column IN ID says `no` then.

            Example: cfsoci boot entries debian
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    var namedImage: ByteString? { image }

    func run() throws {
        let images = try global.openStore(Self.rights, readOnly: true).images
        let resources = try images.bootResources(in: try images.tree(ofImage: image))
        try BootEntriesReport(resources: resources).show(asJSON: json)
        if let damaged = resources.first(where: { $0.fault != nil }), let fault = damaged.fault {
            throw CommandError("\(Output.printable(damaged.path)) cannot be booted: \(fault)")
        }
    }
}

private struct BootEntriesReport: CommandReport {
    var resources: [BootResource]

    var lines: [String] {
        guard !resources.isEmpty else { return ["Nothing to boot"] }
        let rows = resources.map { resource in
            [
                resource.kind.rawValue, Output.printable(resource.name), resource.version.map(Output.printable) ?? "-",
                resource.title.map(Output.printable) ?? "-", resource.isInBootImage ? "yes" : "no", Output.printable(resource.path),
            ]
        }
        return [table(["TYPE", "NAME", "VERSION", "TITLE", "IN ID", "PATH"], rows)]
    }

    var json: JSONValue { ["entries": .array(resources.map(\.json))] }
}

extension BootResource {
    fileprivate var json: JSONValue {
        // One member after the other: as one expression it takes the compiler too long.
        var document: JSONValue = ["type": .string(kind.rawValue), "path": .string(path.jsonText), "name": .string(name.jsonText)]
        document["version"] = .optional(version)
        document["title"] = .optional(title)
        document["options"] = options.map { .array($0.arguments.map { .string($0.jsonText) }) } ?? .null
        document["files"] = .array(files.map(\.json))
        document["isInBootImage"] = .bool(isInBootImage)
        document["problem"] = .text(fault)
        return document
    }
}

extension BootFile {
    fileprivate var json: JSONValue {
        ["key": .string(key.jsonText), "path": .string(path.jsonText), "size": .integer(Int64(clamping: size))]
    }
}

extension JSONValue {
    /// A name or another text of bytes, or null.
    static func optional(_ bytes: ByteString?) -> JSONValue { bytes.map { .string($0.jsonText) } ?? .null }
}
