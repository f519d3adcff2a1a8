import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import Synchronization
import Testing

@Suite struct FsckTests {
    private struct Sample {
        let scratch: Scratch
        let repository: Repository
        let file: StoredObject
        let layer: StoredObject
        let manifest: StoredObject

        init() throws {
            scratch = try Scratch()
            repository = try scratch.create()
            file = try repository.store(content(700))
            layer = try repository.storeStream(inline: content(100), objects: [file])
            manifest = try repository.storeStream(inline: [1], named: [("layer", layer.id)], type: StreamContentType.manifest)
            var publication = Repository.Publication()
            publication.stream("layer", layer.id)
            publication.stream("manifest", manifest.id)
            publication.streamReference("oci/tag", to: "manifest")
            try repository.publish(publication)
        }

        func path(_ object: StoredObject) -> ByteString { "objects/" + ByteString(object.id.objectPath) }
        func problems(metadataOnly: Bool = false) throws -> [String] {
            try repository.check(metadataOnly: metadataOnly).problems.map(\.description).sorted()
        }
    }

    @Test func sound() throws {
        let sample = try Sample()
        let report = try sample.repository.check()
        #expect(report.isOK && report.hasMetadata && report.problems.isEmpty && report.notes.isEmpty)
        #expect(report.objectsChecked == 3 && report.objectsCorrupted == 0)
        #expect(report.streamsChecked == 2 && report.streamsCorrupted == 0)
        #expect(report.imagesChecked == 0 && report.imagesCorrupted == 0 && report.brokenLinks == 0 && report.missingObjects == 0)
        let quick = try sample.repository.check(metadataOnly: true)
        #expect(quick.isOK && quick.objectsChecked == 0 && quick.streamsChecked == 2)
    }

    /// What another handle stores during a check is not reported as damage: it may be listed before or after what it leads to.
    @Test func whileAnotherHandleStores() throws {
        let sample = try Sample()
        let other = try sample.scratch.open()
        let isDone = Atomic<Bool>(false)
        let writer = WorkerPool(threads: 1)
        let scratch = sample.scratch
        writer.submit {
            for number in 0..<250 {
                guard let file = try? other.store(content(100 + number % 3000) + withUnsafeBytes(of: number) { Array($0) }),
                    let stream = try? other.storeStream(inline: [1], objects: [file]), let root = try? scratch.directory()
                else { continue }
                let name = ByteString("new-\(number)")
                try? root.symlink(target: "../objects/" + ByteString(stream.id.objectPath), at: "streams/" + name)
                try? root.symlink(target: "../" + name, at: "streams/refs/" + name)
            }
            isDone.store(true, ordering: .relaxed)
        }
        repeat {
            let problems = try sample.repository.check(metadataOnly: true).problems
            #expect(problems.isEmpty, "\(problems.prefix(3))")
        } while !isDone.load(ordering: .relaxed)
        writer.shutdown()
        #expect(try sample.repository.check().streamsChecked == 252)
    }

    /// A flip of any bit of any file is found and the file named.
    @Test func everyFlipIsFound() throws {
        let sample = try Sample()
        for path in [sample.path(sample.file), sample.path(sample.layer), sample.path(sample.manifest), "meta.json"] {
            let bytes = try sample.scratch.read(path)
            for index in bytes.indices {
                var damaged = bytes
                damaged[index] ^= 1 << UInt8(index % 8)
                try sample.scratch.write(path, damaged)
                let report = try sample.repository.check(threads: 1)
                #expect(report.problems.contains { $0.path == path }, "byte \(index) of \(path)")
                if path.hasPrefix("objects") { #expect(report.objectsCorrupted == 1) }
            }
            try sample.scratch.write(path, Array(bytes.dropLast()))
            #expect(try sample.repository.check().problems.contains { $0.path == path })
            try sample.scratch.write(path, bytes)
        }
        #expect(try sample.problems() == [])
    }

    /// The same of the links' targets: every byte that can be another.
    @Test func everyLinkFlipIsFound() throws {
        let sample = try Sample()
        let root = try sample.scratch.directory()
        for path in ["streams/layer", "streams/manifest", "streams/refs/oci/tag"] as [ByteString] {
            let target = try root.readLink(at: path)
            for index in 0..<target.count {
                for bit in 0..<8 {
                    var damaged = target
                    damaged.bytes[index] ^= 1 << UInt8(bit)
                    if damaged.bytes[index] == 0 { continue }
                    try root.unlink(at: path)
                    try root.symlink(target: damaged, at: path)
                    #expect(try sample.problems(metadataOnly: true).contains { $0.contains(": \(path)") }, "\(path) -> \(damaged)")
                }
            }
            try root.unlink(at: path)
            try root.symlink(target: target, at: path)
        }
        #expect(try sample.problems() == [])
    }

    @Test func digestMismatch() throws {
        let sample = try Sample()
        let path = sample.path(sample.file)
        try sample.scratch.write(path, content(700, seed: 1))
        let actual = content(700, seed: 1).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        let report = try sample.repository.check()
        #expect(report.problems.map(\.description) == ["fsck: object-digest-mismatch: \(path): measured \(actual)"])
        #expect(report.objectsChecked == 3 && report.objectsCorrupted == 1)
        #expect(report.problems == [FsckProblem(.objectDigestMismatch, path, object: actual)])
        #expect(try sample.problems(metadataOnly: true) == [])
    }

    @Test func missingObjects() throws {
        let sample = try Sample()
        let root = try sample.scratch.directory()
        try root.unlink(at: sample.path(sample.file))
        var report = try sample.repository.check()
        #expect(report.problems.map(\.description) == ["fsck: missing-object-ref: streams/layer: \(sample.file.id)"])
        #expect(report.missingObjects == 1 && report.streamsCorrupted == 0)
        try root.unlink(at: sample.path(sample.layer))
        report = try sample.repository.check()
        #expect(
            report.problems.map(\.description) == [
                "fsck: broken-symlink: streams/layer",
                "fsck: missing-named-ref: streams/manifest: ref layer: \(sample.layer.id)",
            ])
        #expect(report.brokenLinks == 1)
        #expect(report.streamsCorrupted == 1)
        #expect(report.brokenLinks == 1 && report.missingObjects == 1)
    }

    @Test func links() throws {
        let sample = try Sample()
        let root = try sample.scratch.directory()
        // Leads to an intact stream, but in another form than the format requires.
        try root.symlink(target: "../objects/../objects/" + ByteString(sample.layer.id.objectPath), at: "streams/odd")
        try root.symlink(target: "../meta.json", at: "streams/none")
        try root.symlink(target: "../objects/" + ByteString(sample.layer.id.objectPath), at: "streams/refs/straight")
        try root.symlink(target: "../gone", at: "streams/refs/gone")
        try root.symlink(target: "../../../../../etc/passwd", at: "streams/refs/oci/out")
        try sample.scratch.write("streams/refs/file", [1])
        try root.makeDirectory(at: "streams/directory")
        try sample.scratch.write("streams/plain", [1])
        let target = "../objects/\(sample.layer.id.objectPath)"
        #expect(
            try sample.problems() == [
                "fsck: broken-symlink: streams/refs/gone",
                "fsck: entry-not-symlink: streams/directory",
                "fsck: entry-not-symlink: streams/plain",
                "fsck: link-mismatch: streams/none: leads to '../meta.json', which is no sha256 object",
                "fsck: link-mismatch: streams/odd: leads to '../objects/../objects/\(sample.layer.id.objectPath)' instead of '\(target)'",
                "fsck: link-mismatch: streams/refs/oci/out: leads to '../../../../../etc/passwd' instead of to an entry of streams/",
                "fsck: link-mismatch: streams/refs/straight: leads to '\(target)' instead of to an entry of streams/",
                "fsck: unexpected-file-type: streams/refs/file: regular file",
            ])
    }

    @Test func strays() throws {
        let sample = try Sample()
        let root = try sample.scratch.directory()
        try sample.scratch.write("README", [1])
        try root.makeDirectory(at: "lost+found")
        try sample.scratch.write("objects/file", [1])
        try root.makeDirectory(at: "objects/XX")
        try root.makeDirectoryIfMissing(at: "objects/aa")
        try sample.scratch.write("objects/aa/short", [1])
        let name = ByteString(String(repeating: "b", count: 62))
        try root.makeDirectory(at: "objects/aa/" + name)
        // The name of an object of the other algorithm.
        let wide = ByteString(String(repeating: "b", count: 126))
        try sample.scratch.write("objects/aa/" + wide, [1])
        try sample.scratch.write("objects/.tmp-object-0123456789ab", [1])
        try root.symlink(target: "x", at: ".symlink-0123456789ab")
        let report = try sample.repository.check()
        #expect(
            report.problems.map(\.description).sorted() == [
                "fsck: object-invalid-name: objects/aa/\(wide): the name is no sha256 digest",
                "fsck: object-invalid-name: objects/aa/short: the name is no sha256 digest",
                "fsck: object-open-failed: objects/aa/\(name): is a directory, not a regular file",
                "fsck: stray-file: README: a regular file that belongs to no repository",
                "fsck: stray-file: objects/XX: a directory that belongs to no repository",
                "fsck: stray-file: objects/file: a regular file that belongs to no repository",
            ])
        #expect(report.notes.count == 2)
        #expect(report.objectsCorrupted == 3 && report.objectsChecked == 6)
    }

    /// Streams that are intact objects with a content that contradicts itself.
    @Test func streamBodies() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let file = try repository.store(content(700))
        var writer = SplitStreamWriter(algorithm: .sha256, contentType: StreamContentType.layer)
        try content(10).withUnsafeBytes { try writer.inline($0) }
        try writer.external(file.id, size: 699)
        let short = try repository.storeStream(writer)
        let sound = try repository.readObject(repository.storeStream(inline: content(900), objects: [file]).id, limit: 1 << 20)
        var flipped = sound
        flipped[flipped.count - 3] ^= 0x10
        let damaged = try repository.store(flipped)
        let text = try repository.store(Array("no stream at all, but longer than a header of one".utf8))
        let cut = try repository.store(Array(sound.dropLast(2)))
        var publication = Repository.Publication()
        publication.stream("short", short.id)
        publication.stream("damaged", damaged.id)
        publication.stream("text", text.id)
        publication.stream("cut", cut.id)
        try repository.publish(publication)
        for metadataOnly in [false, true] {
            let report = try repository.check(metadataOnly: metadataOnly)
            #expect(report.streamsChecked == 4 && report.streamsCorrupted == 4 && report.objectsCorrupted == 0)
            let found = report.problems.map { "\($0.kind.rawValue) \($0.path)" }.sorted()
            #expect(found.contains("stream-open-failed streams/text"))
            #expect(found.contains("stream-open-failed streams/cut"))
            #expect(found.contains { $0.hasSuffix("streams/damaged") })
            #expect(
                report.problems.contains {
                    $0.description == "fsck: stream-read-failed: streams/short: the content has 710 bytes, the header says 709"
                })
        }
    }

    @Test func metadataOnlyReadsStreams() throws {
        let sample = try Sample()
        let path = sample.path(sample.manifest)
        var bytes = try sample.scratch.read(path)
        bytes[98] ^= 1
        try sample.scratch.write(path, bytes)
        #expect(try sample.problems(metadataOnly: true).contains { $0.hasPrefix("fsck: stream-open-failed: streams/manifest: ") })
    }
}
