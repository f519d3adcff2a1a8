import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Glibc
import Testing

@testable import ComposefsRegistry

/// A client with short pauses, so that retries take no time, and without the process's environment.
func makeClient(_ environment: [String: String] = [:], _ adjust: (inout RegistryOptions) -> Void = { _ in }) throws -> RegistryClient {
    var options = RegistryOptions()
    options.retry.baseDelay = .milliseconds(5)
    options.retry.maximumDelay = .milliseconds(20)
    options.stallTimeout = .seconds(10)
    options.connectTimeout = .seconds(5)
    options.userAgent = "cfsoci/test"
    options.recordsChoices = false
    adjust(&options)
    return try RegistryClient(
        options, environment: Environment(["HOME": "/nonexistent"].merging(environment) { $1 }, systemRoot: "/nonexistent"))
}

extension ScriptedServer {
    func repository(_ name: String = "team/app") -> RemoteRepository { RemoteRepository(domain: host, name: name) }
}

/// Bytes without a period, so that a wrong offset shows.
func pattern(_ count: Int) -> [UInt8] {
    var state: UInt64 = 0x9e37_79b9_7f4a_7c15
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 56)
    }
}

/// The download of a blob of one repository, whose response has begun.
func openDownload(
    _ client: RegistryClient, _ repository: RemoteRepository, digest: ContentDigest, size: UInt64, from offset: UInt64 = 0,
    observer: BlobObserver? = nil
) throws -> BlobDownload {
    let descriptor = Descriptor(mediaType: "application/octet-stream", digest: digest, size: size)
    let download = BlobDownload(descriptor, from: offset, client.session.cancellation, observer) {
        RegistryBlobOrigins(client, repository, descriptor)
    }
    try download.connect()
    return download
}

func readAll(_ reader: any BlobReader, chunks: Int = 50_000) throws -> [UInt8] {
    var out: [UInt8] = []
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: chunks, alignment: 16)
    defer { buffer.deallocate() }
    while true {
        let count = try reader.read(into: buffer)
        if count == 0 { return out }
        out.append(contentsOf: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    }
}

/// The response of a busy registry.
let unavailable = RegistryError.Response(request: .manifest("a.example/b:c"), url: "https://a.example/v2/b/manifests/c", status: 503)

/// The registry error that `body` ends with.
func registryError(_ body: () throws -> Void) -> RegistryError? {
    do {
        try body()
        Issue.record("no error")
        return nil
    } catch {
        let registryError = error as? RegistryError
        if registryError == nil { Issue.record("another error: \(error)") }
        return registryError
    }
}

/// A directory that is removed after the test.
func withTemporaryDirectory<Value>(_ body: (String) throws -> Value) throws -> Value {
    let folder = try TestFolder("cfsoci-registry", mode: 0o700)
    return try withExtendedLifetime(folder) { try body(folder.path.description) }
}

func writeFile(_ path: String, _ text: String, mode: mode_t = 0o600) throws {
    let fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
    try #require(fd >= 0)
    defer { close(fd) }
    let bytes = Array(text.utf8)
    try #require(write(fd, bytes, bytes.count) == bytes.count)
}

func makeDirectory(_ path: String) throws { try #require(mkdir(path, 0o700) == 0) }
