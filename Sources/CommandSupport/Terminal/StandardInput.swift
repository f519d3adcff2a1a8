import ComposefsLinuxSystem
import ComposefsOCI

/// Standard input as a blob.
package final class StandardInput: BlobReader {
    package init() {}

    package func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        do throws(SystemError) {
            return try StandardStream.input.read(into: buffer)
        } catch {
            throw CommandError("standard input: \(error.errno)")
        }
    }
}
