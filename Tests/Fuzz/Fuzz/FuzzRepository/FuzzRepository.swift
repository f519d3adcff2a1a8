import ComposefsBytes
import ComposefsDumpfile
import ComposefsFuzzSupport
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransfer
import ComposefsTransports
import Glibc

/// An entry of a repository.
private enum Entry {
    case directory
    case file([UInt8])
    case link(ByteString)
}

/// Damages a whole repository as the bytes determine, then reads, checks, upgrades, collects and repairs it: no trap, no hang, printable errors; no
/// damage is hidden by a collection, and a second one removes nothing.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var choices = Choices(start, count)
    let path = Scratch.path + "/damaged"
    Scratch.remove(path)
    var entries = sample
    for _ in 0..<choices.below(6) { damage(&entries, &choices) }
    write(entries, to: path)
    for _ in 0..<choices.below(3) { plant(in: path, entries, &choices) }
    attempt { try read(Repository.open(path, OpenOptions(readOnly: true))) }
    attempt {
        let repository = try Repository.open(path, OpenOptions(upgradeOldFormat: true, trustsOwner: true))
        attempt { _ = try ImageStore(repository).upgrade() }
        attempt {
            _ = try repository.collectGarbage()
            let again = try repository.collectGarbage()
            precondition(
                again.objectsRemoved == 0 && again.streamsRemoved == 0 && again.imagesRemoved == 0, "a second collection removes more")
        }
        attempt { _ = try repository.check() }
    }
    attempt { _ = try Repository.repairMetadata(path, OpenOptions(trustsOwner: true)) }
    attempt { try read(Repository.open(path, OpenOptions(readOnly: true))) }
    return 0
}

private func attempt(_ body: () throws -> Void) {
    do { try body() } catch { requirePrintable(error) }
}

/// Everything that reads.
private func read(_ repository: Repository) throws {
    let store = ImageStore(repository)
    attempt { for problem in try repository.check().problems { _ = problem.description } }
    attempt { for problem in try store.check(nil, ImageCheckOptions(deep: true)).problems { _ = "\(problem)" } }
    attempt { _ = try store.list() }
    attempt { _ = try store.checkPackingHints() }
    attempt { _ = try repository.collectGarbage(dryRun: true) }
    for tag in (try? store.tags()) ?? [] {
        attempt {
            guard let image = try store.image(tag.manifestDigest) else { return }
            attempt { _ = dumpfile(of: try store.tree(of: image)) }
            attempt { _ = try store.referrerDetails(of: tag.manifestDigest, isRecursive: true) }
            for layer in image.layerIdentifiers {
                attempt { if let stream = image.layerStream(layer) { try store.readLayer(stream) { _ in } } }
            }
        }
    }
}

// MARK: Damage

private func damage(_ entries: inout [ByteString: Entry], _ choices: inout Choices) {
    let paths = entries.keys.sorted()
    let path = paths[choices.below(paths.count)]
    let other = paths[choices.below(paths.count)]
    switch choices.below(11) {
    case 0:
        guard case .file(var bytes) = entries[path], !bytes.isEmpty else { return }
        bytes[choices.below(bytes.count)] ^= choices.byte() | 1
        entries[path] = .file(bytes)
    case 1:
        guard case .file(let bytes) = entries[path] else { return }
        entries[path] = .file(Array(bytes.prefix(choices.below(bytes.count + 1))))
    case 2: entries[path] = nil
    case 3: entries[path] = .directory
    case 4: entries[path] = entries[other]
    case 5:
        let texts: [ByteString] = ["", "/", "..", "../..", "x", "../objects/00/00", "../../oci-manifest-sha256:0", "../\u{1}\u{7f}"]
        entries[path] = .link(choices.one(of: texts))
    case 6: entries[path] = .file(choices.bytes(upTo: 250))
    case 7: entries["meta.json"] = choices.rarely(3) ? nil : .file(choices.bytes(upTo: 250))
    case 8:
        let names: [ByteString] = [
            "stray", "objects/zz", "objects/00/short", "streams/refs/oci/a/b", "images/refs/x", ".staging/x/.active-abcdefghijkl",
            ".leases/abcdefghijkl",
            ".damaged/x", "streams/refs/oci-referrers/sha256:0/sha256:1", "objects/.tmp-object-abcdefghijkl",
        ]
        entries[choices.one(of: names)] = .file(choices.bytes(upTo: 100))
    default:
        // An object of other content under its right name, to which links of the former one lead: only its form can be wrong.
        guard case .file(var bytes) = entries[path], path.hasPrefix("objects/") else { return }
        for _ in 0...choices.below(3) where !bytes.isEmpty {
            let place = choices.below(bytes.count)
            switch choices.below(3) {
            case 0: bytes[place] = choices.byte()
            case 1: bytes.replaceSubrange(place..<place, with: choices.bytes(upTo: 16))
            default: bytes.removeSubrange(place..<min(bytes.count, place + 1 + choices.below(8)))
            }
        }
        let id = bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        let new = "objects/" + ByteString(id.objectPath)
        entries[new] = .file(bytes)
        for (name, entry) in entries {
            if case .link(let target) = entry, target == "../" + path { entries[name] = .link("../" + new) }
        }
    }
}

/// What cannot be written in advance: other kinds of files.
private func plant(in root: ByteString, _ entries: [ByteString: Entry], _ choices: inout Choices) {
    let paths = entries.keys.sorted()
    guard !paths.isEmpty else { return }
    let path = root + "/" + paths[choices.below(paths.count)]
    try? FileDescriptor.currentDirectory.unlink(at: path)
    switch choices.below(3) {
    case 0: _ = path.description.withCString { mkfifo($0, 0o600) }
    case 1: _ = path.description.withCString { mknod($0, S_IFSOCK | 0o600, 0) }
    default: try? FileDescriptor.currentDirectory.symlink(target: "/proc/self/environ", at: path)
    }
}

private func write(_ entries: [ByteString: Entry], to root: ByteString) {
    for (path, entry) in entries.sorted(by: { $0.key < $1.key }) {
        switch entry {
        case .file(let bytes): Scratch.write(root + "/" + path, bytes)
        case .directory: Scratch.write(root + "/" + path + "/.keep", [])
        case .link(let target):
            Scratch.write(root + "/" + path, [])
            try? FileDescriptor.currentDirectory.unlink(at: root + "/" + path)
            try? FileDescriptor.currentDirectory.symlink(target: target, at: root + "/" + path)
        }
    }
}

// MARK: The sample

/// A repository with an image, an artifact that refers to it, and an image of a directory's tree.
private let sample: [ByteString: Entry] = {
    let root = Scratch.path + "/sample"
    let layout = Scratch.path + "/sample-layout"
    // From the choices 0 and 1, of several layers with some files.
    let choices: [UInt8] = [UInt8](repeating: 0, count: 60) + [2, 5] + [UInt8](repeating: 3, count: 80)
    choices.withUnsafeBufferPointer { bytes in
        for file in RandomLayout(Choices(bytes.baseAddress, bytes.count)).files { Scratch.write(layout + "/" + file.path, file.bytes) }
    }
    do {
        let configuration = RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
        let repository = try Repository.initialize(root, configuration).repository
        let source = try LayoutSource(directory: ImageLocation(layout.description))
        let pulled = try pullImage(
            from: source, into: repository, PullOptions(platform: Platform(os: "linux", architecture: "amd64"), name: "t"))
        let artifact = NewArtifact(
            artifactType: "x/y", files: [], annotations: ["org.opencontainers.image.created": "2026-01-01T00:00:00Z"])
        try ImageStore(repository).addReferrer(artifact, to: pulled.manifestDigest)
        try ImageStore(repository).tag(pulled.manifestDigest, as: "a/b")
        var publication = Repository.Publication()
        if let image = pulled.imageID { publication.imageReference("name", image) }
        try repository.publish(publication)
    } catch {
        fatalError("the sample: \(error)")
    }
    var entries: [ByteString: Entry] = [:]
    var pending: [ByteString] = [""]
    while let next = pending.popLast() {
        guard let directory = try? FileDescriptor.open(root + "/" + next, [.readOnly, .directory]) else { continue }
        for entry in (try? directory.entries()) ?? [] {
            let path = next.isEmpty ? entry.name : next + "/" + entry.name
            switch entry.kind {
            case .directory: pending.append(path)
            case .symbolicLink: entries[path] = (try? directory.readLink(at: entry.name)).map { .link($0) }
            default: entries[path] = (try? directory.open(at: entry.name, .readOnly).readAll(limit: 1 << 20)).map { .file($0) }
            }
        }
    }
    return entries
}()
