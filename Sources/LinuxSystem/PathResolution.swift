internal import ComposefsBytes
internal import ComposefsCLinux
internal import Synchronization

/// Opening a path that must not leave a directory: openat2(2), and the same by hand if the kernel or a sandbox does not have that call.
enum PathResolution {
    /// Whether openat2 is known to be missing (ENOSYS: before Linux 5.6, and seccomp profiles).
    static let lacksOpenat2 = Atomic<Bool>(false)

    private static let slash = UInt8(ascii: "/")
    /// How many symbolic links one path may lead through (MAXSYMLINKS of the kernel).
    private static let largestLinkCount = 40
    /// How many bytes the targets of links may add to a path (PATH_MAX for each link).
    private static let targetSize = 4096

    /// Opens a path below `root`. Returns a descriptor or -errno.
    static func open(_ root: Int32, _ path: UnsafeRawBufferPointer, _ flags: OpenFlags, _ mode: UInt32, _ resolve: ResolveFlags) -> Int {
        if lacksOpenat2.load(ordering: .relaxed) { return walk(root, path, flags, mode, resolve) }
        let result = call(root, path, flags, mode, resolve)
        switch Errno(result: min(result, 0)) {
        case .noSystemCall:
            lacksOpenat2.store(true, ordering: .relaxed)
            return walk(root, path, flags, mode, resolve)
        // Seccomp profiles that do not know the call return EPERM. EAGAIN: something was renamed or mounted on this machine while the kernel
        // went up a directory, which the walk does by itself.
        case .notPermitted where result < 0, .tryAgain: return walk(root, path, flags, mode, resolve)
        default: return result
        }
    }

    /// openat2(2) itself, which accepts a mode only if it creates a file.
    static func call(_ root: Int32, _ path: UnsafeRawBufferPointer, _ flags: OpenFlags, _ mode: UInt32, _ resolve: ResolveFlags) -> Int {
        cl_openat2(root, path.baseAddress, path.count, flags.rawValue, flags.creates ? mode : 0, resolve.rawValue)
    }

    /// The same without openat2: opens each directory on the way with O_NOFOLLOW, relative to the previous one, and reads the links itself.
    ///
    /// It knows another mount only by its device, so it does not see a bind mount of the same file system. A link is never followed to create
    /// a file.
    ///
    /// - Parameter resolve: has `beneath` or `inRoot`.
    static func walk(_ root: Int32, _ path: UnsafeRawBufferPointer, _ flags: OpenFlags, _ mode: UInt32, _ resolve: ResolveFlags) -> Int {
        var walk = Walk(root: root, resolve: resolve)
        defer { walk.close(downTo: 0) }
        let opened = walk.open(path, flags, mode)
        guard resolve.contains(.noCrossDevice), let file = Int32(exactly: opened), file >= 0 else { return opened }
        var (there, here) = (cl_stat(), cl_stat())
        let result = min(cl_fstat(file, &there), cl_fstat(root, &here))
        if result >= 0, FileStatus(there).device == FileStatus(here).device { return opened }
        _ = cl_close(file)
        return result < 0 ? result : -Int(Errno.crossDevice.rawValue)
    }

    private struct Walk {
        let root: Int32
        let resolve: ResolveFlags
        /// The directories from the root, without it, to the current one.
        var directories: [Int32] = []
        /// What is left of the path, the next component last.
        var rest: [ArraySlice<UInt8>] = []
        var links = 0

        private var current: Int32 { directories.last ?? root }

        mutating func close(downTo count: Int) {
            while directories.count > count { _ = cl_close(directories.removeLast()) }
        }

        /// Puts a path, of the caller or of a link, before the rest. Returns 0 or -errno.
        private mutating func push(_ path: [UInt8]) -> Int {
            if path.first == slash {
                guard resolve.contains(.inRoot) else { return -Int(Errno.crossDevice.rawValue) }
                close(downTo: 0)
            }
            // A slash at the end asks for a directory.
            if path.last == slash { rest.append(ArraySlice(".".utf8)) }
            rest += path.split(separator: slash).reversed()
            return 0
        }

        mutating func open(_ path: UnsafeRawBufferPointer, _ flags: OpenFlags, _ mode: UInt32) -> Int {
            guard !path.isEmpty else { return -Int(Errno.noEntry.rawValue) }
            let pushed = push(Array(path))
            guard pushed >= 0 else { return pushed }
            let followsLast = !flags.contains(.noFollow) && !flags.creates
            while let name = rest.popLast() {
                if name.elementsEqual(".".utf8) { continue }
                if name.elementsEqual("..".utf8) {
                    if !directories.isEmpty {
                        close(downTo: directories.count - 1)
                    } else if !resolve.contains(.inRoot) {
                        return -Int(Errno.crossDevice.rawValue)
                    }
                    continue
                }
                if rest.isEmpty, !followsLast { return openLast(name, flags, mode) }
                let result = rest.isEmpty ? followLast(name, flags, mode) : enter(name)
                if let result { return result }
            }
            return openLast(ArraySlice(".".utf8), flags, mode)
        }

        private func openLast(_ name: ArraySlice<UInt8>, _ flags: OpenFlags, _ mode: UInt32) -> Int {
            let flags = flags.union(.noFollow)
            return name.withUnsafeBytes { cl_openat(current, $0.baseAddress, $0.count, flags.rawValue, mode) }
        }

        /// Enters a directory. If the name is that of a link, its target comes next. Returns -errno on failure.
        private mutating func enter(_ name: ArraySlice<UInt8>) -> Int? {
            let flags: OpenFlags = [.pathOnly, .directory, .noFollow]
            let opened = name.withUnsafeBytes { cl_openat(current, $0.baseAddress, $0.count, flags.rawValue, 0) }
            if let next = Int32(exactly: opened), next >= 0 {
                directories.append(next)
                return nil
            }
            switch Errno(result: opened) {
            // With O_DIRECTORY, a link is no directory.
            case .notDirectory, .tooManySymbolicLinks: return follow(name, otherwise: opened)
            default: return opened
            }
        }

        /// Opens the last component, unless it is a link, whose target comes next.
        private mutating func followLast(_ name: ArraySlice<UInt8>, _ flags: OpenFlags, _ mode: UInt32) -> Int? {
            let opened = openLast(name, flags, mode)
            if flags.contains(.pathOnly), let file = Int32(exactly: opened), file >= 0 {
                // O_PATH with O_NOFOLLOW opens the link itself.
                var status = cl_stat()
                guard cl_fstat(file, &status) >= 0, FileStatus(status).kind == .symbolicLink else { return opened }
                _ = cl_close(file)
                return follow(name, otherwise: -Int(Errno.tooManySymbolicLinks.rawValue))
            }
            guard opened < 0 else { return opened }
            switch Errno(result: opened) {
            case .notDirectory, .tooManySymbolicLinks: return follow(name, otherwise: opened)
            default: return opened
            }
        }

        /// Puts the target of a link before the rest of the path. Returns `otherwise` if the name is not that of a link.
        private mutating func follow(_ name: ArraySlice<UInt8>, otherwise: Int) -> Int? {
            let current = current
            var target: [UInt8] = []
            let result = withUnsafeTemporaryAllocation(byteCount: targetSize, alignment: 1) { buffer in
                let result = name.withUnsafeBytes { cl_readlinkat(current, $0.baseAddress, $0.count, buffer.baseAddress, buffer.count) }
                if result > 0, result <= buffer.count { target = Array(UnsafeRawBufferPointer(rebasing: buffer[..<result])) }
                return result
            }
            guard result > 0 else { return Errno(result: result) == .invalidArgument ? otherwise : result }
            links += 1
            guard !resolve.contains(.noSymlinks), links <= largestLinkCount else { return -Int(Errno.tooManySymbolicLinks.rawValue) }
            let pushed = push(target)
            return pushed < 0 ? pushed : nil
        }
    }
}
