internal import Bytes
internal import Glibc

/// A whole file of at most `limit` bytes; nil where there is none.
func readSmallFile(_ path: ByteString, limit: Int) throws(RegistryError) -> [UInt8]? {
    func failure(_ what: String) -> RegistryError { RegistryError(.credentials, "auth file \(path): \(what)") }
    guard !path.bytes.contains(0) else { throw failure("its name holds a NUL byte") }
    let raw = path.bytes.map { CChar(bitPattern: $0) } + [0]
    let descriptor = open(raw, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
        if errno == ENOENT || errno == ENOTDIR { return nil }
        throw failure(String(cString: strerror(errno)))
    }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16 << 10)
    while true {
        let count = read(descriptor, &chunk, chunk.count)
        if count < 0 {
            if errno == EINTR { continue }
            throw failure(String(cString: strerror(errno)))
        }
        if count == 0 { return bytes }
        bytes += chunk[..<count]
        guard bytes.count <= limit else { throw failure("more than \(limit) bytes") }
    }
}
