import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI

// What the commands that write the files of an image share.

/// Whose the written files are.
struct OwnershipOptions: ParsableArguments {
    @Flag(
        name: .customLong("as-user"),
        help:
            "Files belong to the user of the command. Devices and attributes that only root can make, and set-user-ID bits, are left out and counted."
    )
    var asUser = false

    init() {}

    var options: UnpackOptions {
        var options = UnpackOptions()
        options.ownedByUser = asUser
        return options
    }
}

extension CommandRights {
    /// Writes files with owners, devices, and the attributes that only root can set.
    static let extracting = CommandRights(
        .reads, writes: "directory of the output",
        capabilities: [
            .changeOwner, .dacOverride, .dacReadSearch, .fileOwner, .keepSetID, .systemAdmin, .makeNode, .setFileCapability,
        ])
}

/// Opens the repository, and confines the process to it and to the directories of what is written.
func openStore(_ global: GlobalOptions, for rights: CommandRights?, writing paths: [ByteString]) throws -> Store {
    try global.openStore(rights, readOnly: true) { confinement in
        for path in paths {
            confinement.writable.append(FileDescriptor.split(path).directory)
            let kind = try? FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true)?.kind
            if kind == .directory { confinement.writable.append(path) }
        }
    }
}

extension ImageStore {
    /// The tree of IMAGE: of the layers of a pulled one, with all that they say.
    func fileTree(of image: ByteString) throws -> ImageTree {
        switch try find(image) {
        case .tagged(_, let image): try ImageTree(of: image, in: self)
        case .named(let image): try ImageTree(of: image, in: self)
        }
    }
}

/// Adds to errors what helps.
func withExtractionHints<Result>(_ body: () throws -> Result) throws -> Result {
    do {
        return try body()
    } catch let error as ExtractionError {
        let text = Output.printable(ByteString(error.description))
        switch error {
        case .ownersNeedRoot:
            throw CommandError(text + "; --as-user makes them yours, and so does a user namespace: podman unshare cfsoci …")
        case .notEmptyDirectory, .notDirectory, .notRegularFile:
            throw CommandError(text + "; name another one, or remove it", code: .notEmpty)
        case .objectSize: throw CommandError(text + "; `cfsoci fsck` lists the affected images and what to do", code: .damaged)
        default: throw CommandError(text)
        }
    }
}

/// Tells which files are missing in an archive.
func warn(ofSockets paths: [ByteString], _ global: GlobalOptions) {
    guard let first = paths.first else { return }
    let others = paths.count > 1 ? " and \(paths.count - 1) more" : ""
    global.warn("a tar archive cannot hold sockets, and this one lacks \(Output.printable(first))\(others)")
}

/// What `unpack` and `cp` print.
struct UnpackedFiles: CommandReport {
    var path: ByteString
    var report: UnpackReport

    var lines: [String] {
        var line = "\(Output.printable(path))  \(report.files) files, \(humanBytes(report.bytes))"
        if report.shared > 0 { line += "; \(report.shared) share their blocks with the repository" }
        return [line] + (report.leftOut > 0 ? ["left out  \(report.leftOut) devices, attributes and mode bits"] : [])
    }

    var json: JSONValue {
        [
            "path": .string(path.jsonText), "files": .count(report.files), "directories": .count(report.directories),
            "bytes": JSONValue(report.bytes), "filesShared": .count(report.shared), "leftOut": .count(report.leftOut),
        ]
    }
}
