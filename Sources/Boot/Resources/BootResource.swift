public import ComposefsBootFormats
public import ComposefsBytes
public import ComposefsFileTree

/// Something in an image that a machine can boot, or that changes what it boots.
public struct BootResource: Sendable {
    public enum Kind: String, Sendable, CaseIterable {
        /// A Type 1 entry of a boot loader: `/boot/loader/entries/*.conf`.
        case entry
        /// A unified kernel image: `*.efi` below `/boot/EFI/Linux` or a directory of `/usr/lib/modules`.
        case unified = "uki"
        /// An addon to the unified kernel images beside it: `*.addon.efi` in the same directories.
        case addon = "uki-addon"
        /// An addon to all unified kernel images: `*.addon.efi` below `/boot/loader/addons`.
        case globalAddon = "global-uki-addon"
        /// `/usr/lib/modules/VERSION/vmlinuz` with `initramfs.img` beside it.
        case kernel
        /// `/boot/vmlinuz-VERSION` with `/boot/initrd.img-VERSION`, as Debian has them.
        case bootKernel = "boot-kernel"

        /// Whether a machine can boot it by itself.
        public var isBootable: Bool { self != .addon && self != .globalAddon }
    }

    public var kind: Kind
    /// The file that tells of it: the entry, the EFI program, or the kernel.
    public var path: ByteString
    /// The entry's or program's file name without its suffix, or the version of the kernel.
    public var name: ByteString
    /// The text for the menu of a boot loader.
    public var title: ByteString?
    /// The version of an entry, or of the kernel.
    public var version: ByteString?
    /// The kernel arguments that it brings along.
    public var options: KernelCommandLine?
    /// The entry itself. For a kernel without one, an entry with its files and no arguments.
    public var entry: LoaderEntry?
    /// The files that a boot loader reads.
    public var files: [BootFile]
    /// Whether all its files are in the image for booting, and so part of that image's ID. What lies in `/boot` is not.
    public var isInBootImage: Bool
    /// Why it cannot be booted.
    public var fault: BootResourceFault?
}

/// A file that a boot loader reads.
public struct BootFile: Sendable, Hashable {
    /// The key of its line in an entry: `linux`, `initrd`, `efi`.
    public var key: ByteString
    /// The path as the entry has it, or in the image.
    public var path: ByteString
    public var content: Content
    /// In bytes.
    public var size: UInt64
}

/// Why something in an image cannot be booted.
public enum BootResourceFault: Error, Sendable, Equatable, CustomStringConvertible {
    /// A file that an entry names, or the file itself, is a directory or another special file.
    case notRegularFile(ByteString)
    /// A file that an entry names is not in the image.
    case missingFile(ByteString)
    /// An entry names no kernel and no EFI program.
    case noKernel
    /// The initial RAM disk of a kernel is missing; the path where it should be.
    case noInitialRamDisk(ByteString)
    /// The size of an entry, and the limit; both in bytes.
    case tooLarge(size: UInt64, limit: Int)
    case executable(ExecutableError)

    public var description: String {
        switch self {
        case .notRegularFile(let path): "\(path) is not a regular file"
        case .missingFile(let path): "\(path) is not in the image"
        case .noKernel: "it names no kernel"
        case .noInitialRamDisk(let path): "there is no initial RAM disk \(path)"
        case .tooLarge(let size, let limit): "the entry has \(size) bytes; at most \(limit) are read"
        case .executable(let error): "\(error)"
        }
    }
}
