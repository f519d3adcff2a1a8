import ComposefsOCI
import Glibc

/// Standard input as a blob.
final class StandardInput: BlobReader {
    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        while true {
            let count = Glibc.read(STDIN_FILENO, buffer.baseAddress, buffer.count)
            if count >= 0 { return count }
            if errno != EINTR { throw CommandError("standard input: \(String(cString: strerror(errno)))") }
        }
    }
}
