import ComposefsBootFormats
import ComposefsBytes
import ComposefsFileTree
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository

/// What a unified kernel image is made of, of the image or of files of this system.
struct UnifiedKernelParts {
    var kernel: StoredFile
    /// Several are one after the other.
    var ramDisks: [StoredFile]
    var osRelease: StoredFile
    var version: ByteString?
    /// Those that come with an entry of the image.
    var arguments: KernelCommandLine

    init(_ tree: FileTree, _ options: UnifiedKernelOptions, _ images: ImageStore) throws {
        let repository = images.repository
        func stored(_ content: Content, _ path: ByteString) throws -> StoredFile {
            guard let file = try StoredFile(content, in: repository) else { throw BootResourceFault.notRegularFile(path) }
            return file
        }
        func opened(_ path: ByteString) throws -> StoredFile {
            // Not blocking: a FIFO of this name must not block the caller.
            let file = try FileDescriptor.open(path, [.readOnly, .nonBlocking])
            guard try file.status().kind == .regular else { throw BootResourceFault.notRegularFile(path) }
            return .object(try OpenFile(file))
        }
        // An image need not have a kernel if both files are given.
        let isGiven = options.kernel != nil && options.initialRamDisk != nil
        var chosen: BootResource?
        if !isGiven || options.resource != nil {
            chosen = try ImageStore.choose(
                options.resource, images.bootResources(in: tree), kinds: [.kernel, .bootKernel, .entry])
        }
        var kernel = try options.kernel.map(opened)
        var ramDisks = try options.initialRamDisk.map { [try opened($0)] }
        if let chosen {
            if kernel == nil {
                guard let file = chosen.files.first(where: { $0.key == "linux" }) else {
                    throw BootError.resource(chosen.path, .noKernel)
                }
                kernel = try stored(file.content, file.path)
            }
            if ramDisks == nil {
                ramDisks = try chosen.files.filter { $0.key == "initrd" }.map { try stored($0.content, $0.path) }
            }
        }
        guard let kernel, let ramDisks else { preconditionFailure("what is not given is of the image") }
        self.kernel = kernel
        self.ramDisks = ramDisks
        // Of another kernel, nothing is known; and an entry's version need not be its kernel's.
        version = options.kernel == nil && chosen?.kind != .entry ? chosen?.version : nil
        arguments = chosen?.options ?? KernelCommandLine([])
        if let path = options.osRelease {
            osRelease = try opened(path)
        } else {
            let paths: [ByteString] = ["/etc/os-release", "/usr/lib/os-release"]
            guard let path = paths.first(where: { tree.resolve($0, followingLast: true) != nil }),
                let inode = tree.resolve(path, followingLast: true), let content = tree.content(of: inode)
            else { throw UnifiedKernelError.noOSRelease }
            osRelease = try stored(content, path)
        }
    }
}
