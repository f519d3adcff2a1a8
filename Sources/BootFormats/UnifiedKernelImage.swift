public import ComposefsBytes

/// A unified kernel image, or an addon to one (UAPI specification "Unified Kernel Image"; systemd-stub(7)).
///
/// Sections after the first `.profile` belong to alternatives that a boot menu offers; only those before it are looked at.
public struct UnifiedKernelImage: Sendable {
    public enum Kind: Sendable, Equatable {
        /// It has a kernel.
        case kernel
        /// It has no kernel, and adds to one: a command line, device trees, microcode, an initial RAM disk.
        case addon
    }

    public let executable: PortableExecutable
    private let sections: [PortableExecutable.Section]

    /// The largest size in bytes of a section with text that is read. The kernel's own limit of a command line is below 64 KiB.
    public static let textLimit = 1 << 20

    /// - Throws: `ExecutableError`, or the error of `file`.
    public init(_ file: some RandomAccessBytes) throws {
        executable = try PortableExecutable(file)
        sections = Array(executable.sections.prefix { $0.name != ".profile" })
    }

    public var kind: Kind { section(".linux") == nil ? .addon : .kernel }

    /// The first section of this name; nil if there is none.
    public func section(_ name: ByteString) -> PortableExecutable.Section? { sections.first { $0.name == name } }

    /// The text of a section such as `.cmdline`, `.uname` or `.osrel`, up to the first NUL. Nil if there is no such section.
    ///
    /// - Throws: `ExecutableError`, or the error of `file`.
    public func text(_ name: ByteString, in file: some RandomAccessBytes) throws -> ByteString? {
        guard let section = section(name) else { return nil }
        let bytes = ByteString(try executable.contents(of: section, in: file, limit: Self.textLimit).prefix { $0 != 0 })
        guard bytes.utf8Text != nil else { throw ExecutableError.notUTF8(name) }
        return bytes
    }

    /// The kernel arguments in `.cmdline`. Nil if there is no such section.
    public func commandLine(in file: some RandomAccessBytes) throws -> KernelCommandLine? {
        try text(".cmdline", in: file).map { KernelCommandLine(parsing: $0.bytes) }
    }

    /// The name and version of the operating system in `.osrel`, for the menu of a boot loader. Nil if there is none.
    public func label(in file: some RandomAccessBytes) throws -> ByteString? {
        try text(".osrel", in: file).flatMap { OSRelease(parsing: $0.bytes).label }
    }
}
