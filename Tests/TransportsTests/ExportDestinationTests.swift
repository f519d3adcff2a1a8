import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsTransports
import Glibc
import Synchronization
import Testing

private let layers: [[UInt8]] = [[UInt8](repeating: 7, count: 300_000), [1, 2, 3]]
private let image = SourcesImage(layers)

/// Writes an image to a destination. `meanwhile` runs before and after every part.
private func export(_ image: SourcesImage, to destination: any ImageDestination, meanwhile: @escaping @Sendable () -> Void = {}) throws {
    meanwhile()
    for bytes in image.layers + [image.config] {
        let expected = SentBlob(digest: .of(bytes), size: UInt64(bytes.count))
        _ = try destination.putBlob(
            OutgoingBlob(expected: expected) { emit in
                meanwhile()
                try bytes.withUnsafeBytes { try emit($0) }
                meanwhile()
            })
    }
    meanwhile()
    try destination.putManifest(Manifest(parsing: image.manifest), digest: image.digest, isNamed: true)
    meanwhile()
    try destination.finish()
    meanwhile()
}

/// The paths below a directory with their contents. Symbolic links are listed, not followed.
private func contents(_ directory: ByteString) throws -> [String: [UInt8]] {
    var found: [String: [UInt8]] = [:]
    func walk(_ path: ByteString, _ prefix: String) throws {
        for entry in try FileDescriptor.open(path, [.readOnly, .directory, .noFollow]).entries() {
            let (inner, name) = (path + "/" + entry.name, prefix + entry.name.description)
            switch entry.kind {
            case .directory: try walk(inner, name + "/")
            case .symbolicLink: found[name] = Array("-> ".utf8) + (try FileDescriptor.currentDirectory.readLink(at: inner)).bytes
            default: found[name] = try FileDescriptor.open(inner, .readOnly).readAll(limit: 16 << 20)
            }
        }
    }
    try walk(directory, "")
    return found
}

/// The calls of this thread that name and sync something, as `name PATH` and `sync PATH`.
private final class Order: SystemCallObserver {
    private let thread = pthread_self()
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }

    func before(_ call: SystemCall) -> Errno? { nil }

    func after(_ call: SystemCall, result: Int) {
        guard pthread_self() == thread, result >= 0 else { return }
        let name: ByteString? =
            switch call.kind {
            case .rename, .makeDirectory: call.path.map { "name " + ByteString($0) }
            case .fsync:
                (try? FileDescriptor.currentDirectory.readLink(at: ByteString("/proc/self/fd/\(call.descriptor)"))).map { "sync " + $0 }
            default: nil
            }
        if let name { lines.withLock { $0.append(name.description) } }
    }
}

@Suite struct LayoutDestinationOrderTests {
    /// What may be on the disk after a power cut at any moment: nothing; an empty directory; a layout. Never blobs without the marker, which the
    /// next export would refuse. When the export has ended, also the name of the directory is on the disk.
    @Test func namesAreDurableInOrder() throws {
        let folder = try SourcesFolder()
        let order = Order()
        Kernel.observe(order)
        defer { Kernel.observe(nil) }
        try export(image, to: LayoutDestination(directory: ImageLocation("\(folder.path)/out:v1")))
        let calls = order.all
        let out = "\(folder.path)/out"
        func index(_ call: String) throws -> Int { try #require(calls.firstIndex(of: call), "\(call) is not in \(calls)") }
        #expect(try index("name \(out)") < index("sync \(folder.path)"))
        #expect(try index("sync \(folder.path)") < index("name oci-layout"))
        #expect(try index("name oci-layout") < index("sync \(out)"))
        #expect(try index("sync \(out)") < index("name blobs"))
        #expect(calls.last == "sync \(out)")
    }
}

@Suite struct ArchiveDestinationTests {
    /// In a directory that others can write to, every file that appears while an archive is written is replaced by a link to a file of the
    /// user.
    @Test func exchangedNames() throws {
        let folder = try SourcesFolder()
        let other = SourcesImage([[9, 9, 9]], name: "foreign")
        for file in layoutFiles([other], entries: [other.entry("v1")]) { try folder.write("victim/" + file.path, file.bytes) }
        try folder.write("out/mark", [1])
        let before = try contents(folder.path + "/victim")
        let (out, victim) = (folder.path + "/out", folder.path + "/victim")
        let destination = try ArchiveDestination(ImageLocation("\(out)/x.tar:v1"))
        try export(image, to: destination) {
            let here = FileDescriptor.currentDirectory
            for entry in (try? FileDescriptor.open(out, [.readOnly, .directory]).entries()) ?? []
            where entry.name != "mark" && entry.name != "x.tar" && entry.kind != .symbolicLink {
                try? here.rename(at: out + "/" + entry.name, to: out + "/aside-" + ByteString(Host.randomName()))
                try? here.symlink(target: victim, at: out + "/" + entry.name)
            }
        }
        #expect(try contents(folder.path + "/victim") == before)
        #expect(try readImage("oci-archive:\(out)/x.tar:v1").0.manifest.bytes == image.manifest)
        #expect(try contents(out).keys.sorted() == ["mark", "x.tar"])
    }

    /// Bytes that are exchanged during writing are detected, and no archive appears.
    @Test func wrongBlobs() throws {
        let folder = try SourcesFolder()
        try folder.write("out/mark", [1])
        let destination = try ArchiveDestination(ImageLocation(folder.at("out/x.tar")))
        let expected = SentBlob(digest: .of([1, 2, 3]), size: 3)
        #expect(throws: PushError.self) {
            try destination.putBlob(OutgoingBlob(expected: expected) { emit in try [UInt8]([1, 2, 4]).withUnsafeBytes { try emit($0) } })
        }
        #expect(!destination.hasBlob(Descriptor(mediaType: "x/y", digest: expected.digest, size: 3)))
        // A failed write leaves no bytes before the next one.
        try export(image, to: destination)
        #expect(try readImage("oci-archive:" + folder.at("out/x.tar")).0.layers == layers)
        #expect(try contents(folder.path + "/out").keys.sorted() == ["mark", "x.tar"])
    }

    /// A blob that changes after it was verified, before it is in the archive: no archive appears.
    @Test func changedSpools() throws {
        let folder = try SourcesFolder()
        try folder.write("out/mark", [1])
        let destination = try ArchiveDestination(ImageLocation(folder.at("out/x.tar")))
        for bytes in image.layers + [image.config] { _ = try destination.putBlob(OutgoingBlob(bytes, digest: .of(bytes))) }
        try destination.putManifest(Manifest(parsing: image.manifest), digest: image.digest, isNamed: true)
        var changed = 0
        for entry in try FileDescriptor.open("/proc/self/fd", [.readOnly, .directory]).entries() {
            let path = "/proc/self/fd/" + entry.name
            // The files have no names, so only this process reaches them.
            guard let target = try? FileDescriptor.currentDirectory.readLink(at: path), target.hasPrefix(folder.path + "/out/") else {
                continue
            }
            let file = try FileDescriptor.open(path, .readWrite)
            _ = try file.seek(to: 100, from: .start)
            try file.writeAll([8])
            changed += 1
        }
        #expect(changed > 0)
        #expect(throws: PushError.self) { try destination.finish() }
        #expect(try contents(folder.path + "/out").keys.sorted() == ["mark"])
    }

    @Test func leftovers() throws {
        let folder = try SourcesFolder()
        for name in ["x.tar.tmp-0123456789ab.tar", "y.tar.tmp-0123456789ab.tar", "x.tar.tmp-1.tar"] { try folder.write("out/" + name, [1]) }
        try folder.symlink("y.tar.tmp-0123456789ab.tar", "out/x.tar.tmp-abcdefabcdef.tar")
        try export(image, to: ArchiveDestination(ImageLocation(folder.at("out/x.tar"))))
        #expect(
            try contents(folder.path + "/out").keys.sorted() == [
                "x.tar", "x.tar.tmp-1.tar", "x.tar.tmp-abcdefabcdef.tar", "y.tar.tmp-0123456789ab.tar",
            ])
    }

    /// Remains of another user are not removed, in archives and layouts alike.
    @Test(.enabled(if: Host.effectiveUserID == 0)) func leftoversOfOthers() throws {
        let folder = try SourcesFolder()
        for name in ["x.tar.tmp-0123456789ab.tar", "layout/.tmp-0123456789ab", "layout/blobs/sha256/.tmp-0123456789ab"] {
            try folder.write("out/" + name, [1])
            try FileDescriptor.currentDirectory.changeOwner(at: folder.path + "/out/" + ByteString(name), uid: 12345, gid: 12345)
        }
        for file in layoutFiles([image], entries: [image.entry("v0")]) { try folder.write("out/layout/" + file.path, file.bytes) }
        try export(image, to: ArchiveDestination(ImageLocation(folder.at("out/x.tar"))))
        try export(image, to: LayoutDestination(directory: ImageLocation(folder.at("out/layout:v1"))))
        #expect(
            try contents(folder.path + "/out").keys.filter { $0.contains(".tmp-") }.sorted() == [
                "layout/.tmp-0123456789ab", "layout/blobs/sha256/.tmp-0123456789ab", "x.tar.tmp-0123456789ab.tar",
            ])
    }

    /// A name of the maximum length.
    @Test func longNames() throws {
        let folder = try SourcesFolder()
        let name = String(repeating: "n", count: 255)
        try export(image, to: ArchiveDestination(ImageLocation(folder.at(name))))
        #expect(try readImage("oci-archive:" + folder.at(name)).0.layers == layers)
    }
}

/// The same text names a destination and, afterwards, the image in it.
@Suite struct DestinationNameTests {
    @Test(arguments: ["", ":1", ":app:1", ":team/app:1", ":docker.io/team/app:1", ":localhost:5000/app:1"])
    func readWhatWasWritten(name: String) throws {
        let folder = try SourcesFolder()
        try folder.write("a:b/mark", [1])
        for (transport, file) in [("oci", "a:b/layout"), ("oci-archive", "a:b/archive.tar")] {
            let location = ImageLocation(folder.at(file + name))
            let destination: any ImageDestination =
                transport == "oci" ? try LayoutDestination(directory: location) : try ArchiveDestination(location)
            try export(image, to: destination)
            let reference = "\(transport):\(folder.at(file + name))"
            #expect(destination.displayName == reference)
            #expect(try readImage(reference).0.manifest.bytes == image.manifest)
        }
        #expect(try FileDescriptor.open(folder.path, [.readOnly, .directory]).entries().map(\.name) == ["a:b"])
        let entries = try FileDescriptor.open(folder.path + "/a:b", [.readOnly, .directory]).entries()
        #expect(entries.map(\.name).sorted() == ["archive.tar", "layout", "mark"])
    }
}

@Suite struct LayoutDestinationTests {
    /// A link in place of a directory or file of the layout is not followed, and the image is refused.
    @Test(arguments: ["blobs", "blobs/sha256", "index.json", "oci-layout"]) func plantedLinks(name: String) throws {
        let folder = try SourcesFolder()
        let other = SourcesImage([[9]], name: "other")
        for file in layoutFiles([other], entries: [other.entry("old")]) {
            try folder.write("victim/" + file.path, file.bytes)
            try folder.write("out/" + file.path, file.bytes)
        }
        let out = folder.path + "/out/" + ByteString(name)
        try FileDescriptor.currentDirectory.rename(at: out, to: folder.path + "/aside")
        try FileDescriptor.currentDirectory.symlink(target: folder.path + "/victim/" + ByteString(name), at: out)
        let before = try contents(folder.path + "/victim")
        let error = #expect(throws: OCIError.self) {
            try export(image, to: LayoutDestination(directory: ImageLocation(folder.at("out:new"))))
        }
        #expect(error?.description.contains("\(name) is a symbolic link") == true, "\(String(describing: error))")
        #expect(try contents(folder.path + "/victim") == before)
    }

    /// A directory is opened once: one that replaces it later gets nothing.
    @Test func exchangedDirectory() throws {
        let folder = try SourcesFolder()
        try folder.write("victim/mark", [1])
        let (out, victim, aside) = (folder.path + "/out", folder.path + "/victim", folder.path + "/aside")
        try export(image, to: LayoutDestination(directory: ImageLocation("\(out):v1"))) {
            guard (try? FileDescriptor.currentDirectory.statusIfPresent(at: aside)) == .some(nil) else { return }
            try? FileDescriptor.currentDirectory.rename(at: out, to: aside)
            try? FileDescriptor.currentDirectory.symlink(target: victim, at: out)
        }
        #expect(try contents(victim).keys.sorted() == ["mark"])
        #expect(try readImage("oci:\(aside):v1").0.manifest.bytes == image.manifest)
    }

    /// A link to the layout is followed if the user or root owns it, but not if another user does.
    @Test(.enabled(if: Host.effectiveUserID == 0)) func linksToLayouts() throws {
        let folder = try SourcesFolder()
        try folder.write("real/mark", [1])
        try folder.remove("real/mark")
        try folder.symlink("real", "own")
        try folder.symlink("own", "foreign")
        try FileDescriptor.currentDirectory.changeOwner(at: folder.path + "/foreign", uid: 12345, gid: 12345)
        let error = #expect(throws: SystemError.self) { try LayoutDestination(directory: ImageLocation(folder.at("foreign:v1"))) }
        #expect(error?.errno == .tooManySymbolicLinks)
        #expect(try contents(folder.path + "/real").isEmpty)
        try export(image, to: LayoutDestination(directory: ImageLocation(folder.at("own:v1"))))
        #expect(try readImage("oci:" + folder.at("real:v1")).0.layers == layers)
    }

    /// A blob that is in the layout already is read, and is written again if it is damaged.
    @Test(arguments: ["content", "size", "directory", "link"]) func damagedBlobs(kind: String) throws {
        let folder = try SourcesFolder()
        try export(image, to: LayoutDestination(directory: ImageLocation(folder.at("out:v1"))))
        let name = "out/blobs/sha256/" + ContentDigest.of(layers[0]).hex
        switch kind {
        case "content": try folder.write(name, [UInt8](repeating: 8, count: layers[0].count))
        case "size": try folder.write(name, [7])
        case "directory":
            try folder.remove(name)
            try folder.write(name + "/file", [7])
        default:
            try folder.write("victim", layers[0])
            try folder.remove(name)
            try folder.symlink(folder.at("victim"), name)
        }
        let destination = try LayoutDestination(directory: ImageLocation(folder.at("out:v1")))
        let blob = Descriptor(mediaType: "x/y", digest: .of(layers[0]), size: UInt64(layers[0].count))
        #expect(try !destination.hasBlob(blob))
        guard kind != "directory" else { return }
        try export(image, to: destination)
        #expect(try destination.hasBlob(blob))
        #expect(try readImage("oci:" + folder.at("out:v1")).0.layers == layers)
    }

    /// An index without an image, as other programs write it. Its other members stay.
    @Test(arguments: ["[]", "null"]) func emptyIndexes(manifests: String) throws {
        let folder = try SourcesFolder()
        try folder.write("out/oci-layout", #"{"imageLayoutVersion":"1.0.0"}"#)
        try folder.write("out/index.json", #"{"schemaVersion":2,"manifests":\#(manifests),"annotations":{"a":"b"}}"#)
        try export(image, to: LayoutDestination(directory: ImageLocation(folder.at("out:v1"))))
        #expect(try readImage("oci:" + folder.at("out:v1")).0.layers == layers)
        let index = String(decoding: try #require(try contents(folder.path + "/out")["index.json"]), as: UTF8.self)
        #expect(index.contains(#""annotations":{"a":"b"}"#))
    }

    /// The layout is readable at every moment, even if the export fails.
    @Test func wholeAtEveryMoment() throws {
        let folder = try SourcesFolder()
        let out = folder.path + "/out"
        let seen = SeenFaults()
        try export(image, to: LayoutDestination(directory: ImageLocation("\(out):v1"))) {
            seen.add(sourceFault("oci:\(out)"))
        }
        #expect(seen.all == ["\(out): index.json lists no image"])
        try export(SourcesImage([[3]], name: "second"), to: LayoutDestination(directory: ImageLocation("\(out):v2"))) {
            seen.add(sourceFault("oci:\(out):v1"))
        }
        #expect(seen.all == ["\(out): index.json lists no image"])
    }

    /// Remains of killed exports: only temporary files, no index.
    @Test func leftovers() throws {
        let folder = try SourcesFolder()
        try folder.write("out/.tmp-0123456789ab", [1])
        try folder.write("out/.tmp-other", [1])
        #expect(throws: OCIError.self) { try LayoutDestination(directory: ImageLocation(folder.at("out"))) }
        try folder.remove("out/.tmp-other")
        try folder.write("out/.tmp-0123456789ab", [1])
        _ = try LayoutDestination(directory: ImageLocation(folder.at("out")))
        try folder.write("out/blobs/sha256/.tmp-0123456789ab", [1])
        try folder.write("out/blobs/sha256/.tmp-lockedlocked", [1])
        let held = try FileDescriptor.open(folder.path + "/out/blobs/sha256/.tmp-lockedlocked", .readOnly)
        try held.lock(.exclusive)
        try folder.remove("out/index.json")
        try export(image, to: LayoutDestination(directory: ImageLocation(folder.at("out:v1"))))
        #expect(try readImage("oci:" + folder.at("out:v1")).0.layers == layers)
        #expect(try contents(folder.path + "/out").keys.filter { $0.contains(".tmp-") } == ["blobs/sha256/.tmp-lockedlocked"])
        _ = held.raw
    }
}

private final class SeenFaults: @unchecked Sendable {
    private(set) var all: Set<String> = []
    func add(_ fault: String?) { if let fault { all.insert(fault) } }
}
