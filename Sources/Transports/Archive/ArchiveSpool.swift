public import ComposefsBytes
import ComposefsCompression
public import ComposefsConcurrency
import ComposefsLinuxSystem
public import ComposefsOCIModel
import ComposefsTar

/// The scratch space and the limits for archives that cannot be read in place because they are compressed or come through a pipe.
public struct ArchiveScratch: Sendable {
    /// The directory of the scratch file. The file has no name in it.
    public var directory: ByteString
    /// `layerBytes` limits the size of each file of the archive.
    public var limits: PullLimits
    /// Whether an archive that would leave no room for the image is refused.
    public var checksSpace: Bool
    /// Ends reading and the wait for a pipe.
    public var cancellation: Cancellation

    /// - Parameters:
    ///   - directory: the directory of the scratch file.
    ///   - limits: `layerBytes` limits the size of each file of the archive.
    ///   - checksSpace: whether an archive that would leave no room for the image is refused.
    ///   - cancellation: ends reading and the wait for a pipe.
    public init(
        _ directory: ByteString, limits: PullLimits = PullLimits(), checksSpace: Bool = true,
        cancellation: Cancellation = Cancellation()
    ) {
        self.directory = directory
        self.limits = limits
        self.checksSpace = checksSpace
        self.cancellation = cancellation
    }
}

/// Writes a decompressed copy of an archive to an unnamed file, and indexes its entries at the same time.
///
/// A few kilobytes can decompress to any size. Writing therefore stops at the first byte that exceeds the limit for one file
/// (`PullLimits.layerBytes`), half of the free space, a plausible compression ratio, or `largestArchive`.
struct ArchiveSpool: ~Copyable {
    private let input: ArchiveInput
    private let scratch: ArchiveScratch
    private let file: FileDescriptor
    private var parser = TarParser()
    private var index: TarIndex
    private var written: UInt64 = 0
    private let allowance: Allowance

    /// The most bytes that are written, however large the file system is.
    private static let largestArchive: UInt64 = 256 << 30

    private struct Allowance {
        /// Half of the free space, in bytes: the image needs the other half. Nil if it is unknown or is not checked.
        var space: UInt64?
        /// The compression ratio is not checked below this size, in bytes.
        static let ratioCheckStart: UInt64 = 1 << 30
        /// The largest plausible compression ratio. Root file systems reach about 3, seldom 10.
        static let largestRatio: UInt64 = 100
    }

    /// Copies `input` and returns the open copy with its index.
    static func write(_ input: ArchiveInput, to scratch: ArchiveScratch) throws -> (OpenFile, TarIndex) {
        let directory = try FileDescriptor.open(scratch.directory, [.readOnly, .directory])
        let status = try directory.fileSystemStatus()
        let free = Host.effectiveUserID == 0 ? status.freeBytes : status.availableBytes
        // Some network and FUSE file systems report no size at all.
        let allowance = Allowance(space: scratch.checksSpace && status.totalBytes > 0 ? free / 2 : nil)
        let file = try directory.openUnnamed()
        var spool = ArchiveSpool(input, scratch, allowance, try file.duplicate())
        try spool.run()
        return (try OpenFile(file), spool.index)
    }

    private init(_ input: ArchiveInput, _ scratch: ArchiveScratch, _ allowance: Allowance, _ file: consuming FileDescriptor) {
        index = TarIndex(source: input.path, largestFile: scratch.limits.layerBytes)
        self.input = input
        self.scratch = scratch
        self.allowance = allowance
        self.file = file
    }

    private mutating func run() throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: 512 << 10, alignment: 4096)
        defer {
            buffer.deallocate()
            output.deallocate()
        }
        var count = try input.read(into: buffer, atLeast: TarIndex.prefixBytes)
        guard count > 0 else { throw OCIError.damaged(source: input.path, .empty) }
        let format = CompressionFormat.detect(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        var decompressor = Decompressor(format)
        do {
            while count > 0 {
                var chunk = UnsafeRawBufferPointer(rebasing: buffer[..<count])
                while case let produced = try decompressor.decompress(&chunk, into: output), produced > 0 {
                    try take(UnsafeRawBufferPointer(rebasing: output[..<produced]), format, from: decompressor.consumed)
                }
                count = try input.read(into: buffer)
            }
            try decompressor.finish()
            try parser.finish()
        } catch let error as CompressionError {
            throw OCIError.damaged(source: input.path, .compression(error))
        } catch let error as TarError {
            throw index.explain(error)
        }
    }

    private mutating func take(_ bytes: UnsafeRawBufferPointer, _ format: CompressionFormat, from consumed: UInt64) throws {
        written += UInt64(bytes.count)
        let path = input.path
        guard written <= Self.largestArchive else {
            throw OCIError.unsupported(document: path.description, .archiveTooLarge(limit: Self.largestArchive))
        }
        if let space = allowance.space, written > space {
            throw OCIError.unsupported(document: path.description, .noSpace(limit: space, directory: scratch.directory))
        }
        if format != .none, written > max(Allowance.ratioCheckStart, consumed.multiplied(by: Allowance.largestRatio)) {
            throw OCIError.unsupported(document: path.description, .compressionRatio(limit: Allowance.largestRatio, format))
        }
        index.notePrefix(bytes)
        try parser.feed(bytes, to: &index)
        try file.writeAll(bytes)
    }
}

extension UInt64 {
    fileprivate func multiplied(by factor: UInt64) -> UInt64 {
        let (product, isOver) = multipliedReportingOverflow(by: factor)
        return isOver ? .max : product
    }
}
