import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import Testing

@Suite struct LinkTests {
    @Test func linksAreWrittenExactlySo() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let object = try repository.store(content(100))
        let stream = try repository.storeStream(objects: [object])
        let image = try repository.store(content(200))
        var publication = Repository.Publication()
        publication.stream("oci-layer-sha256:abc", stream.id)
        publication.streamReference("foo", to: "oci-layer-sha256:abc")
        publication.streamReference("oci/docker.io%2Fx", to: "oci-layer-sha256:abc")
        publication.streamReference("oci-referrers/a/b", to: "oci-layer-sha256:abc")
        publication.imageReference("a/b", image.id)
        publication.imageReference("c", image.id)
        try repository.publish(publication)
        let listing = try scratch.listing()
        #expect(listing["streams/oci-layer-sha256:abc"] == "-> ../objects/\(stream.id.objectPath)")
        #expect(listing["streams/refs/foo"] == "-> ../oci-layer-sha256:abc")
        #expect(listing["streams/refs/oci/docker.io%2Fx"] == "-> ../../oci-layer-sha256:abc")
        #expect(listing["streams/refs/oci-referrers/a/b"] == "-> ../../../oci-layer-sha256:abc")
        #expect(listing["images/\(image.id.hex)"] == "-> ../objects/\(image.id.objectPath)")
        #expect(listing["images/refs/a/b"] == "-> ../../\(image.id.hex)")
        #expect(listing["images/refs/c"] == "-> ../\(image.id.hex)")
        // The staging directory and the marker went with the publication.
        #expect(listing.keys.allSatisfy { !$0.hasPrefix(".") })
        let root = try scratch.directory()
        for path in ["streams", "streams/refs", "streams/refs/oci", "images", "images/refs/a"] as [ByteString] {
            #expect(try root.status(at: path).permissions == 0o755)
        }
        #expect(try repository.stream("oci-layer-sha256:abc") == stream.id)
        #expect(try repository.stream("none") == nil)
        #expect(try repository.streamNames() == ["oci-layer-sha256:abc"])
        #expect(try repository.imageIDs() == [image.id])
        #expect(try repository.image("a/b") == image.id)
        #expect(try repository.image("c") == image.id)
        #expect(try repository.image(ByteString(image.id.hex)) == image.id)
        #expect(failure { _ = try repository.image("d") }?.description == "image not found: d")
        #expect(
            try repository.streamReferences() == [
                Reference(name: "foo", target: "../oci-layer-sha256:abc"),
                Reference(name: "oci-referrers/a/b", target: "../../../oci-layer-sha256:abc"),
                Reference(name: "oci/docker.io%2Fx", target: "../../oci-layer-sha256:abc"),
            ])
        #expect(try repository.streamReferences(under: "oci").map(\.name) == ["docker.io%2Fx"])
        #expect(try repository.streamReferences(under: "none").isEmpty)
        #expect(try repository.imageReferences().map(\.entry) == [ByteString(image.id.hex), ByteString(image.id.hex)])
        #expect(try repository.streamReference("oci/docker.io%2Fx")?.entry == "oci-layer-sha256:abc")
        #expect(try repository.removeStreamReference("foo"))
        #expect(try !repository.removeStreamReference("foo"))
        #expect(try repository.removeImageReference("a/b"))
        #expect(try repository.streamReference("foo") == nil)
    }

    /// The content that is there already is not written again; another is replaced without a moment in between.
    @Test func rewriting() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let one = try repository.storeStream(inline: [1])
        let two = try repository.storeStream(inline: [2])
        func publish(_ id: ObjectID) throws -> [Recorder.Call] {
            var publication = Repository.Publication()
            publication.stream("s", id)
            publication.streamReference("t", to: "s")
            let recorder = Recorder()
            try recorder.observe { try repository.publish(publication) }
            return recorder.recorded
        }
        #expect(try publish(one.id).filter { $0.kind == .symlink }.count == 2)
        #expect(try publish(one.id).allSatisfy { $0.kind != .symlink && $0.kind != .rename })
        let calls = try publish(two.id).filter { [.symlink, .rename, .unlink].contains($0.kind) && !$0.path.hasPrefix(".staging") }
        #expect(calls.map(\.kind) == [.symlink, .rename])
        #expect(calls[0].path.hasPrefix(".symlink-") && calls[0].path.count == 9 + 12)
        #expect(calls[1].path == "streams/s" && calls[1].target == calls[0].path)
        #expect(try repository.stream("s") == two.id)
        #expect(try scratch.listing(false).keys.allSatisfy { !$0.hasPrefix(".symlink") })
    }

    @Test(arguments: ["", ".", "..", "a/b", "refs", "a\0b", "/", "../x"] as [ByteString])
    func streamNamesAreChecked(_ name: ByteString) throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let stream = try repository.storeStream()
        var publication = Repository.Publication()
        publication.stream(name, stream.id)
        guard case .invalidName = failure({ try repository.publish(publication) }) else {
            Issue.record("\(name) was accepted")
            return
        }
        #expect(failure { _ = try repository.stream(name) } != nil)
        #expect(failure { try repository.stage(name, stream.id) } != nil)
        #expect(failure { _ = try repository.stagedStream(name) } != nil)
        #expect(failure { try repository.clearStaged([name]) } != nil)
        #expect(try scratch.listing()["streams"] == nil)
    }

    @Test(arguments: ["", ".", "..", "a/../b", "a//b", "/a", "a/", "a\0", "./a"] as [ByteString])
    func referenceNamesAreChecked(_ name: ByteString) throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        var publication = Repository.Publication()
        publication.streamReference(name, to: "s")
        #expect(failure { try repository.publish(publication) } != nil)
        #expect(failure { _ = try repository.removeStreamReference(name) } != nil)
        #expect(failure { _ = try repository.streamReference(name) } != nil)
        if !name.isEmpty { #expect(failure { _ = try repository.streamReferences(under: name) } != nil) }
        var other = Repository.Publication()
        other.streamReference("fine", to: name.isEmpty ? "" : "../" + name)
        #expect(failure { try repository.publish(other) } != nil)
        #expect(try scratch.listing()["streams"] == nil)
    }

    @Test func tooLongName() throws {
        let repository = try Scratch().create()
        let name = ByteString([UInt8](repeating: 0x61, count: 256))
        #expect(failure { _ = try repository.stream(name) }?.description.hasSuffix("a component is longer than 255 bytes") == true)
    }

    @Test func foreignLinksAreRead() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let object = try repository.storeStream()
        let root = try scratch.directory()
        try root.makeDirectory(at: "streams")
        // The reference reads the tail of any target that begins with "../".
        try root.symlink(target: "../elsewhere/../objects/" + ByteString(object.id.objectPath), at: "streams/odd")
        try root.symlink(target: "/objects/" + ByteString(object.id.objectPath), at: "streams/absolute")
        try root.symlink(target: "../objects/00/11", at: "streams/short")
        try scratch.write("streams/file", [1])
        #expect(try repository.stream("odd") == object.id)
        for name in ["absolute", "short", "file"] as [ByteString] {
            guard case .invalidLink = failure({ _ = try repository.stream(name) }) else {
                Issue.record("\(name) was accepted")
                return
            }
        }
    }

    @Test func streams() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let large = try repository.store(content(5000))
        let bytes = content(300_000)
        var builder = try repository.makeStreamBuilder(contentType: StreamContentType.layer)
        builder.addNamedReference("name", large.id)
        try bytes.withUnsafeBytes { try builder.inline($0) }
        try builder.external(large.id, size: large.size)
        #expect(builder.totalSize == 305_000)
        let stored = try builder.finish()
        // The same through memory: what is spilled is no other stream.
        let plain = try repository.storeStream(inline: bytes, objects: [large], named: [("name", large.id)])
        #expect(plain.id == stored.id && !plain.isNew)
        var reader = try repository.openStream(stored.id, contentType: StreamContentType.layer)
        #expect(reader.objectReferences == [large.id])
        #expect(reader.namedReferences.map(\.name) == ["name"])
        var inline: [UInt8] = []
        var externals: [ObjectID] = []
        while let chunk = try reader.next() {
            switch chunk {
            case .inline(let bytes): inline += Array(bytes)
            case .external(let id): externals.append(id)
            }
        }
        #expect(inline == bytes)
        #expect(externals == [large.id])
        guard case .stream = failure({ _ = try repository.openStream(stored.id, contentType: StreamContentType.config) }) else {
            Issue.record("another content type was accepted")
            return
        }
        guard case .stream = failure({ _ = try repository.openStream(large.id) }) else {
            Issue.record("a file was accepted as a stream")
            return
        }
    }

    /// More than a mebibyte of packed body waits in a file.
    @Test func spilledStream() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        var random = SystemRandomNumberGenerator()
        let bytes = (0..<(4 << 20)).map { _ in UInt8.random(in: .min ... .max, using: &random) }
        let object = try repository.store([9])
        var builder = try repository.makeStreamBuilder(contentType: StreamContentType.blob)
        for start in stride(from: 0, to: bytes.count, by: 1 << 20) {
            try bytes[start..<(start + (1 << 20))].withUnsafeBytes { try builder.inline($0) }
            try builder.external(object.id, size: 1)
        }
        let stored = try builder.finish()
        #expect(stored.size > 4 << 20)
        var reader = try repository.openStream(stored.id)
        var inline: [UInt8] = []
        while let chunk = try reader.next() {
            if case .inline(let bytes) = chunk { inline += Array(bytes) }
        }
        #expect(inline == bytes)
        var publication = Repository.Publication()
        publication.stream("large", stored.id)
        try repository.publish(publication)
        #expect(try repository.check().problems == [])
    }

    @Test func images() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let image = try repository.storeImage(content(10_000))
        var publication = Repository.Publication()
        publication.imageReference("name", image.id)
        try repository.publish(publication)
        for name in ["name", ByteString(image.id.hex)] {
            let opened = try repository.openImage(name)
            let (id, isVerified) = (opened.id, opened.isVerified)
            #expect(id == image.id)
            #expect(isVerified)
            let unverified = try repository.openImage(name, verify: false).isVerified
            #expect(!unverified)
        }
        let path = "objects/" + ByteString(image.id.objectPath)
        var damaged = content(10_000)
        damaged[1] ^= 1
        try scratch.write(path, damaged)
        guard case .objectDamaged = failure({ _ = try repository.openImage("name") }) else {
            Issue.record("a damaged image was opened")
            return
        }
        // A link to another object than its name says is refused before anything is read.
        let other = try repository.store([1])
        let link = "images/" + ByteString(image.id.hex)
        try scratch.directory().unlink(at: link)
        try scratch.directory().symlink(target: "../objects/" + ByteString(other.id.objectPath), at: link)
        guard case .invalidLink(link, .otherObject(other.id)) = failure({ _ = try repository.openImage("name") }) else {
            Issue.record("an image with the link of another object was opened")
            return
        }
        try scratch.directory().unlink(at: link)
        guard case .image("name", .danglingReference(ByteString(image.id.hex))) = failure({ _ = try repository.openImage("name") }) else {
            Issue.record("an image without a link was opened")
            return
        }
    }
}
