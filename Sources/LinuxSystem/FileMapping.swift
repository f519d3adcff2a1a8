internal import ComposefsBytes
internal import ComposefsCLinux

/// A file that is mapped into memory, for reading and writing. What is written stays in the file's pages, which the kernel can take out of memory
/// at any time.
///
/// One thread at a time may call `grow`.
package final class FileMapping: @unchecked Sendable {
    package private(set) var base: UnsafeMutableRawPointer
    /// The size of the file and of the mapping, a multiple of the page size.
    package private(set) var byteCount: Int
    private let file: FileDescriptor

    private static let pageSize = 1 << 16

    /// Allocates space in an empty file, so that writing to memory cannot fail for want of it, and maps it.
    package init(_ file: consuming FileDescriptor, byteCount: Int) throws(SystemError) {
        self.byteCount = Self.rounded(byteCount)
        try file.allocate(UInt64(self.byteCount))
        var base: UnsafeMutableRawPointer?
        let result = cl_map_shared(file.raw, self.byteCount, &base)
        guard result >= 0, let base else { throw SystemError("map", result, at: file.raw, nil) }
        self.base = base
        self.file = file
    }

    deinit { _ = cl_unmap(base, byteCount) }

    /// Larger than any page of Linux: a mapping ends with a page.
    private static func rounded(_ byteCount: Int) -> Int { (byteCount + pageSize - 1) & ~(pageSize - 1) }

    /// Makes file and mapping larger. `base` may change.
    package func grow(to byteCount: Int) throws(SystemError) {
        let byteCount = Self.rounded(byteCount)
        guard byteCount > self.byteCount else { return }
        try file.allocate(UInt64(byteCount))
        var moved: UnsafeMutableRawPointer? = base
        let result = cl_map_resize(&moved, self.byteCount, byteCount)
        guard result >= 0, let moved else { throw SystemError("map", result, at: file.raw, nil) }
        base = moved
        self.byteCount = byteCount
    }

    /// Takes all pages out of the process's memory. What uses them next gets them from the file's pages again. Any thread may use the mapping at the
    /// same time.
    package func evict() { _ = cl_map_evict(base, byteCount) }
}
