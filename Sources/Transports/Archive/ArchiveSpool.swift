public import ComposefsBytes
import ComposefsCompression
public import ComposefsConcurrency
import ComposefsLinuxSystem
public import ComposefsOCIModel
import ComposefsTar

/// Where an archive is written to that cannot be read in place because it is compressed or comes through a pipe, and how much of it is
/// taken.
public struct ArchiveScratch: Sendable {
    /// The directory; the file has no name there.
    public var directory: ByteString
    /// No file of the archive may be larger than a layer.
    public var limits: PullLimits
    /// Whether an archive is refused that leaves no room for the image.
    public var checksSpace: Bool
    /// Ends reading, and the wait for a pipe too.
    public var cancellation: Cancellation

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

/// Writes an archive to an unnamed file, decompressed, and notes its entries on the way.
///
/// A few kilobytes can decompress to any amount, so it stops at the first byte too many: of a file (`PullLimits.layerBytes`), of what is
/// free, of what compressed archives of images become, and of all together.
struct ArchiveSpool: ~Copyable {
    private let input: ArchiveInput
    private let scratch: ArchiveScratch
    private let file: FileDescriptor
    private var parser = TarParser()
    private var index: TarIndex
    private var written: UInt64 = 0
    private let allowance: Allowance

    /// Bytes that are written at most, whatever the file system has.
    private static let largestArchive: UInt64 = 256 << 30

    private struct Allowance {
        /// Half of what is free: the image takes the other half. Nil if that is not known, or not asked for.
        var space: UInt64?
        /// What compressed archives become is not looked at below this.
        static let unsuspicious: UInt64 = 1 << 30
        /// Root file systems become three times as large, and ten is much.
        static let growth: UInt64 = 100
    }

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
        guard count > 0 else { throw OCIError.damaged(source: input.path, "is empty") }
        let format = CompressionFormat.detect(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        var decompressor = Decompressor(format)
        do {
            while count > 0 {
                var piece = UnsafeRawBufferPointer(rebasing: buffer[..<count])
                while case let produced = try decompressor.decompress(&piece, into: output), produced > 0 {
                    try take(UnsafeRawBufferPointer(rebasing: output[..<produced]), format, from: decompressor.consumed)
                }
                count = try input.read(into: buffer)
            }
            try decompressor.finish()
            try parser.finish()
        } catch let error as CompressionError {
            throw OCIError.damaged(source: input.path, error.description)
        } catch let error as TarError {
            throw index.explain(error)
        }
    }

    private mutating func take(_ bytes: UnsafeRawBufferPointer, _ format: CompressionFormat, from consumed: UInt64) throws {
        written += UInt64(bytes.count)
        let path = input.path
        guard written <= Self.largestArchive else {
            throw OCIError.unsupported(document: path.description, "the archive has more than \(Self.largestArchive) bytes")
        }
        if let space = allowance.space, written > space {
            throw OCIError.unsupported(
                document: path.description,
                "the archive has more than \(space) bytes decompressed, half of what is free at \(scratch.directory); the image would not "
                    + "fit beside it. Decompress it on another file system and pull it from there")
        }
        if format != .none, written > max(Allowance.unsuspicious, consumed.multiplied(by: Allowance.growth)) {
            throw OCIError.unsupported(
                document: path.description,
                "more than \(Allowance.growth) times its size comes out of the archive, which no image is expected to do; if it is right, "
                    + "decompress it with \(format == .gzip ? "gzip -d" : "zstd -d") and pull what comes out")
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
