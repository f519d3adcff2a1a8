import ComposefsBytes
import ComposefsCompression
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Glibc
import Testing

private let layers: [[UInt8]] = [[UInt8](repeating: 7, count: 300_000), [1, 2, 3]]
private let image = SourcesImage(layers)

private func dockerArchive(_ tags: [String]) -> [UInt8] {
    let images = tags.enumerated().map { index, tags in
        #"{"Config":"\#(index).json","RepoTags":\#(tags),"Layers":["0.tar","1.tar"]}"#
    }
    let files = layers.enumerated().map { (path: "\($0.offset).tar", bytes: $0.element) }
    let configs = tags.indices.map { (path: "\($0).json", bytes: SourcesImage(layers, name: "image \($0)").config) }
    return ustar(files + configs + [(path: "manifest.json", bytes: Array("[\(images.joined(separator: ","))]".utf8))])
}

private func packed(_ bytes: [UInt8], level: Int32 = 3) -> [UInt8] {
    var compressor = ZstdCompressor()
    var packed: [UInt8] = []
    bytes.withUnsafeBytes { compressor.compress($0, into: &packed) }
    compressor.finish(into: &packed)
    return packed
}

/// `docker-archive:FILE:@N` (containers-transports(5)), and the same of layouts.
@Suite struct SourcesLocationTests {
    @Test func unnamedImages() throws {
        let folder = try SourcesFolder()
        try folder.write("x.tar", dockerArchive(["null", "[]", #"["team/app:1"]"#]))
        let reference = "docker-archive:" + folder.at("x.tar")
        for index in 0..<3 {
            let (read, source) = try readImage(reference + ":@\(index)")
            #expect(read.config == SourcesImage(layers, name: "image \(index)").config)
            #expect(source.canonicalName == (index == 2 ? "docker.io/team/app:1" : reference + ":@\(index)"))
        }
        let fault = sourceFault(reference)
        #expect(fault?.contains(#"the archive has @0, @1, "team/app:1""#) == true, "\(fault ?? "none")")
        #expect(sourceFault(reference + ":@3")?.contains("no image @3 among 3") == true)
        #expect(sourceFault(reference + ":@")?.contains("there is no image") == true)
        #expect(sourceFault(reference + ":@-1")?.contains("there is no image") == true)
        #expect(sourceFault(reference + ":@99999999999999999999")?.contains("there is no image") == true)
    }

    @Test func layouts() throws {
        let folder = try SourcesFolder()
        let other = SourcesImage(layers, name: "other")
        for file in layoutFiles([image, other], entries: [image.entry("v1"), other.entry(nil)]) { try folder.write(file.path, file.bytes) }
        let reference = "oci:\(folder.path)"
        #expect(try readImage(reference + ":@1").0.config == other.config)
        #expect(try readImage(reference + ":@0").1.canonicalName == reference + ":@0")
        #expect(sourceFault(reference + ":@2")?.contains("no image @2 among 2") == true)
    }

    /// File names that contain the separators of references.
    @Test(arguments: ["a:1.tar", "a@1.tar", "a:@1.tar", "a:b:c", "@1", "a@sha256:b"]) func oddFileNames(name: String) throws {
        let folder = try SourcesFolder()
        try folder.write(name, dockerArchive([#"["team/app:1"]"#, "null"]))
        let reference = "docker-archive:" + folder.at(name)
        #expect(sourceFault(reference + ":team/app:1") == nil)
        #expect(sourceFault(reference + ":@1") == nil)
        #expect(sourceFault(reference)?.contains(#""team/app:1", @1"#) == true)
    }

    /// A large layer with many names is hashed once.
    @Test func repeatedLayers() throws {
        let folder = try SourcesFolder()
        let content = [UInt8](repeating: 9, count: 3 << 20)
        let blob = packed(content + content)
        let many = [[UInt8]](repeating: content + content, count: 300)
        let text = #"[{"Config":"c.json","RepoTags":null,"Layers":[\#(many.map { _ in #""l""# }.joined(separator: ","))]}]"#
        let files = [(path: "blob", bytes: blob), (path: "c.json", bytes: SourcesImage(many).config)]
        try folder.write(
            "x.tar", ustar(files + [(path: "manifest.json", bytes: Array(text.utf8))], links: [(path: "l", type: "2", target: "blob")]))
        let source = try parseReference("docker-archive:" + folder.at("x.tar")).openLocalSource(scratch: ArchiveScratch(folder.path))
        let manifest = try Manifest(parsing: #require(source).rootManifest().bytes)
        #expect(Set(manifest.layers.map(\.digest)) == [ContentDigest.of(blob)])
    }
}

/// Archives from pipes, and which of them are refused.
@Suite struct SourcesPipeTests {
    /// Runs `body` while a new thread writes to the FIFO.
    private func feeding<Result>(_ fifo: String, _ bytes: [UInt8], chunks: Int = 65_536, _ body: () throws -> Result) throws -> Result {
        try FileDescriptor.currentDirectory.makeNode(at: ByteString(fifo), mode: S_IFIFO | 0o600)
        signal(SIGPIPE, SIG_IGN)
        let done = Semaphore(0)
        let writer = WorkerPool(threads: 1)
        writer.submit {
            if let file = try? FileDescriptor.open(ByteString(fifo), .writeOnly) {
                for start in stride(from: 0, to: bytes.count, by: chunks) {
                    guard (try? file.writeAll(Array(bytes[start..<min(start + chunks, bytes.count)]))) != nil else { break }
                }
            }
            done.signal()
        }
        defer {
            done.wait()
            writer.shutdown()
        }
        return try body()
    }

    @Test(arguments: [1021, 65_536]) func fifos(chunks: Int) throws {
        let folder = try SourcesFolder()
        let archive = dockerArchive([#"["team/app:1"]"#])
        for (index, bytes) in [archive, packed(archive)].enumerated() {
            let fifo = folder.at("fifo\(index)")
            let (read, source) = try feeding(fifo, bytes, chunks: chunks) { try readImage("docker-archive:\(fifo):team/app:1") }
            #expect(read.layers == layers)
            #expect(source.canonicalName == "docker.io/team/app:1")
        }
        let fifo = folder.at("layout")
        let layout = ustar(layoutFiles([image], entries: [image.entry("v1")]))
        #expect(try feeding(fifo, layout, chunks: chunks) { try readImage("oci-archive:\(fifo):v1") }.0.layers == layers)
    }

    @Test func cutAndEmptyPipes() throws {
        let folder = try SourcesFolder()
        let archive = dockerArchive(["null"])
        let cut = try feeding(folder.at("cut"), Array(archive.prefix(100_000))) { sourceFault("docker-archive:" + folder.at("cut")) }
        #expect(cut?.contains("the archive ends inside the file's content") == true, "\(cut ?? "none")")
        let empty = try feeding(folder.at("empty"), []) { sourceFault("docker-archive:" + folder.at("empty")) }
        #expect(empty?.contains("is empty") == true, "\(empty ?? "none")")
        #expect(sourceFault("docker-archive:/dev/null")?.contains("neither a regular file nor a pipe") == true)
    }

    /// Waiting for a pipe without a writer ends after the caller's time limit.
    @Test func cancelledWait() throws {
        let folder = try SourcesFolder()
        try FileDescriptor.currentDirectory.makeNode(at: folder.path + "/fifo", mode: S_IFIFO | 0o600)
        let reference = try parseReference("docker-archive:" + folder.at("fifo"))
        let scratch = ArchiveScratch(folder.path)
        #expect(
            startThread("test") {
                Cancellation().sleep(.milliseconds(300))
                scratch.cancellation.cancel()
            })
        #expect(throws: CancellationError.self) { try reference.openLocalSource(scratch: scratch) }
    }

    /// The limits of a layer apply to a compressed archive and to a pipe before anything is written. An archive on disk needs no space.
    @Test func tooLarge() throws {
        let folder = try SourcesFolder()
        var limits = PullLimits()
        limits.layerBytes = 299_999
        let archive = dockerArchive(["null"])
        try folder.write("x.tar.zst", packed(archive))
        try folder.write("x.tar", archive)
        let fault = sourceFault("docker-archive:" + folder.at("x.tar.zst"), limits: limits)
        #expect(fault?.contains(#"entry "0.tar" at byte 0 of the archive: the layer has 300000 bytes; the limit is 299999"#) == true)
        let piped = try feeding(folder.at("fifo"), archive) { sourceFault("docker-archive:" + folder.at("fifo"), limits: limits) }
        #expect(piped?.contains("the layer has 300000 bytes; the limit is 299999") == true)
        #expect(sourceFault("docker-archive:" + folder.at("x.tar"), limits: limits) == nil)
    }

    /// 2 GiB of zeros in several files, none of them too large for a layer.
    @Test func growsTooMuch() throws {
        let folder = try SourcesFolder()
        let chunk = ustar([(path: "zeros", bytes: [UInt8](repeating: 0, count: 64 << 20))]).dropLast(1024)
        var compressor = ZstdCompressor()
        var bomb: [UInt8] = []
        for _ in 0..<32 { chunk.withUnsafeBytes { compressor.compress($0, into: &bomb) } }
        compressor.finish(into: &bomb)
        try folder.write("x.tar.zst", bomb)
        let fault = sourceFault("oci-archive:" + folder.at("x.tar.zst"), scratch: folder.path)
        #expect(fault?.contains("more than 100 times its size") == true, "\(fault ?? "none")")
        #expect(fault?.contains("zstd -d") == true)
    }

    /// On a file system of 16 MiB, an archive that would use more than half of it.
    @Test(.enabled(if: Host.effectiveUserID == 0)) func leavesRoom() throws {
        let folder = try SourcesFolder()
        let large = SourcesImage([(0..<12 << 20).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 7) }])
        try folder.write("x.tar.zst", packed(ustar(layoutFiles([large], entries: [large.entry(nil)]))))
        try folder.write("small/mark", [1])
        #expect(system("mount -t tmpfs -o size=16m none \(folder.at("small"))") == 0)
        defer { _ = system("umount \(folder.at("small"))") }
        let fault = sourceFault("oci-archive:" + folder.at("x.tar.zst"), scratch: folder.path + "/small")
        #expect(fault?.contains("half of the free space") == true, "\(fault ?? "none")")
        let reference = try parseReference("oci-archive:" + folder.at("x.tar.zst"))
        #expect(throws: Never.self) { try reference.openLocalSource(scratch: ArchiveScratch(folder.path + "/small", checksSpace: false)) }
    }
}

/// Unsupported formats are named.
@Suite struct SourcesForeignFormatTests {
    @Test(
        arguments: [
            ("xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 4]), ("bzip2", Array("BZh91AY&SY".utf8)),
            ("bzip2", Array("BZh9".utf8) + [0x17, 0x72, 0x45, 0x38, 0x50, 0x90]),
            ("lzma", [0x5d, 0, 0, 0x80, 0, 0xff]), ("lz4", [4, 0x22, 0x4d, 0x18]), ("lzip", Array("LZIP".utf8) + [1]),
            ("compress", [0x1f, 0x9d, 0x90]),
            ("zip", Array("PK".utf8) + [3, 4]), ("7z", Array("7z".utf8) + [0xbc, 0xaf, 0x27, 0x1c]),
            ("rar", Array("Rar!".utf8) + [0x1a, 7, 1]),
        ] as [(String, [UInt8])])
    func named(name: String, magic: [UInt8]) throws {
        let folder = try SourcesFolder()
        let bytes = magic + [UInt8](repeating: 0xa5, count: 2048)
        for (file, content) in [("x.tar", bytes), ("x.tar.zst", packed(bytes))] {
            try folder.write(file, content)
            for transport in ["docker-archive", "oci-archive"] {
                let fault = sourceFault("\(transport):" + folder.at(file))
                #expect(fault?.contains("is in \(name) format") == true, "\(fault ?? "none")")
                #expect(fault?.contains("Decompress it first") == true)
            }
        }
    }

    /// An archive may begin with any name.
    @Test(arguments: ["BZh91AY&SY", "LZIP\u{1}", "7z\u{7f}", "PK\u{3}\u{4}"]) func namesThatLookLikeIt(name: String) throws {
        let folder = try SourcesFolder()
        try folder.write("x.tar", ustar([(path: name, bytes: [1])] + layoutFiles([image], entries: [image.entry("v1")])))
        #expect(sourceFault("oci-archive:" + folder.at("x.tar")) == nil)
    }
}

/// The meaning of `PATH:NAME` before anything exists: the same text finds what was written.
@Suite struct ImageLocationTests {
    @Test(
        arguments: [
            ("out", "out", nil), ("out:1", "out", "1"), ("out:app:1", "out", "app:1"), ("out:team/app:1", "out", "team/app:1"),
            ("out:docker.io/team/app:1", "out", "docker.io/team/app:1"), ("out:localhost:5000/app:1", "out", "localhost:5000/app:1"),
            ("a:b/out:1", "a:b/out", "1"), ("a:b/out:x:1", "a:b/out", "x:1"), ("a:b/out", "a:b/out", nil),
            ("sub/out:x:1", "sub/out", "x:1"),
            ("taken:1:x:2", "taken:1", "x:2"), ("taken:1", "taken:1", nil), ("no/such:x:1", "no/such", "x:1"),
        ] as [(String, String, String?)])
    func reading(text: String, path: String, name: String?) throws {
        let folder = try SourcesFolder()
        for file in ["a:b/mark", "sub/mark", "taken:1/mark"] { try folder.write(file, [1]) }
        let (found, foundName) = try ImageLocation(folder.at(text)).located()
        #expect(found.description == folder.at(path))
        #expect(foundName?.description == name)
    }

    /// A path that cannot be inspected is not treated as missing: otherwise the reference would name another destination.
    @Test func unreadablePath() throws {
        let folder = try SourcesFolder()
        try folder.symlink("loop", "loop")
        let error = #expect(throws: SystemError.self) { try ImageLocation(folder.at("loop:1")).located() }
        #expect(error?.errno == .tooManySymbolicLinks)
        #expect(throws: SystemError.self) { try LayoutDestination(directory: ImageLocation(folder.at("loop:1"))) }
        #expect(try FileDescriptor.open(folder.path, [.readOnly, .directory]).entries().map(\.name) == ["loop"])
    }
}
