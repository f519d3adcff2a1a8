import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsTestSupport
import Testing

/// The checkout from which the tests were compiled.
let checkout: ByteString = {
    let parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
    return ByteString(parts.dropLast(3).joined(separator: "/"))
}()

let quickstart = "oci:\(checkout)/Tests/Fixtures/quickstart-layout:example"
let quickstartBlobs = checkout + "/Tests/Fixtures/quickstart-layout/blobs/sha256/"

/// The output of `make-quickstart-layout`, with the digests from its documents.
enum Quickstart {
    static let manifest = "47587a3d3b3ceae615e219316808faabd5cd1b98e3fd4bfecced842c91600196"
    static let config = "1496cdea05f8c68fd3a36428dd8106a1b5a7850baa6fdf1f72b1c3ead432b842"
    static let blobs = [
        "054c302113bc64d6b0e3c1c103e57e5e6d8138674713f381463c79cadcc550df",
        "d2ddabbf5bbb13a18dcd10c7ba0003e3dea4bffd7a279ac921a9443b2878f010",
    ]
    static let diffIDs = [
        "4e79232d97c0a15b4c04b411ac5e346187b252556a0de80a25f2d6c6cac47bf9",
        "d470fbe1eb31cb6e3768e99bcb2d3d7f66dec09117a28791d075540a20373c4d",
    ]

    static func digest(_ hex: String) throws -> ContentDigest { try #require(ContentDigest("sha256:" + hex)) }
    static func blob(_ hex: String) throws -> [UInt8] { try readFile(quickstartBlobs + ByteString(hex)) }
}

func readFile(_ path: ByteString) throws -> [UInt8] { try FileDescriptor.open(path, .readOnly).readAll(limit: 1 << 24) }

func readText(_ path: ByteString) throws -> String { try #require(ByteString(try readFile(path)).utf8Text) }

/// A directory that is removed with the value.
final class Folder {
    private let folder: TestFolder
    var path: ByteString { folder.path }

    init() throws { folder = try TestFolder("composefs-oci", wantsVerity: true) }

    func makeDirectory(_ name: ByteString) throws -> ByteString {
        try FileDescriptor.makeDirectory(path + "/" + name, mode: 0o755)
        return path + "/" + name
    }

    func makeStore(_ configuration: RepositoryConfiguration = RepositoryConfiguration(verity: .automatic)) throws -> Store {
        try Store.openOrCreate(path + "/repository", configuration).store
    }
}

/// A blob in memory.
final class MemoryReader: BlobReader {
    private var rest: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { rest = bytes[...] }

    func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let chunk = rest.prefix(buffer.count)
        buffer.copyBytes(from: chunk)
        rest = rest.dropFirst(chunk.count)
        return chunk.count
    }
}
