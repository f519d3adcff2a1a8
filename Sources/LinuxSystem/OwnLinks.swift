public import ComposefsBytes

extension FileDescriptor {
    private static var slash: UInt8 { UInt8(ascii: "/") }

    /// Opens a directory that the caller named, to write into it. If the path is a symbolic link, it is followed only if root or this user
    /// owns it: in a directory that others can write to, a link of theirs could lead anywhere.
    ///
    /// - Throws: ELOOP for a link of another user and for too many links.
    public static func openDirectoryToWrite(_ path: ByteString) throws(SystemError) -> FileDescriptor {
        var (parentPath, name) = split(path)
        var parent = try FileDescriptor.open(parentPath, [.pathOnly, .directory])
        // The kernel's own limit of links.
        for _ in 0..<40 {
            let entry = try parent.open(at: name, [.pathOnly, .noFollow])
            let status = try entry.status()
            switch status.kind {
            case .directory: return try entry.open(at: ".", [.readOnly, .directory])
            case .symbolicLink:
                guard status.uid == 0 || status.uid == Host.effectiveUserID else {
                    throw SystemError("follow the symbolic link of another user", path, .tooManySymbolicLinks)
                }
                (parentPath, name) = split(try entry.readLink(at: ""))
                parent = try parent.open(at: parentPath, [.pathOnly, .directory])
            default: throw SystemError("open", path, .notDirectory)
            }
        }
        throw SystemError("open", path, .tooManySymbolicLinks)
    }

    /// Splits a path into its directory and its last name. The name is `.` if the path consists of slashes only.
    public static func split(_ path: ByteString) -> (directory: ByteString, name: ByteString) {
        var bytes = path.bytes[...]
        while bytes.count > 1, bytes.last == slash { bytes.removeLast() }
        guard let at = bytes.lastIndex(of: slash) else { return (directory: ".", name: ByteString(bytes)) }
        let name = bytes[(at + 1)...]
        return (directory: at == 0 ? "/" : ByteString(bytes[..<at]), name: name.isEmpty ? "." : ByteString(name))
    }
}
