internal import ComposefsBytes
internal import ComposefsLinuxSystem

/// Puts new content in a file's place, durably, and makes it and its directories where they are missing, for their owner alone. A link stays and
/// what it leads to is replaced.
///
/// - Parameter keepsMode: a file that is there keeps its permissions.
func replaceFile(_ path: ByteString, with content: [UInt8], keepsMode: Bool = false) throws(SystemError) {
    var target = path
    for _ in 0..<40 {
        guard try FileDescriptor.currentDirectory.statusIfPresent(at: target)?.kind == .symbolicLink else { break }
        let link = try FileDescriptor.currentDirectory.readLink(at: target)
        target = link.bytes.first == UInt8(ascii: "/") ? link : splitPath(target).directory + "/" + link
    }
    let status = try FileDescriptor.currentDirectory.statusIfPresent(at: target)
    if let status, status.kind != .regular {
        throw SystemError("replace what is no regular file at", target, .notSupported)
    }
    let (directoryPath, name) = splitPath(target)
    try makePrivateDirectories(directoryPath)
    let directory = try FileDescriptor.open(directoryPath, [.readOnly, .directory])
    let temporary = "." + name + "." + ByteString(Host.randomName())
    let file = try directory.open(at: temporary, [.writeOnly, .create, .exclusive], mode: 0o600)
    do throws(SystemError) {
        try file.writeAll(content)
        if keepsMode, let status { try file.changeMode(status.permissions) }
        try file.sync()
        try directory.rename(at: temporary, to: name)
    } catch {
        try? directory.unlink(at: temporary)
        throw error
    }
    try directory.sync()
}

/// Runs `body` while no other process that does so with the same file or directory runs its own. Where it cannot be opened or not be locked,
/// nobody else is kept from what they want to do.
func whileLocked<Value>(
    _ path: ByteString, _ flags: OpenFlags, _ body: () throws(RegistryError) -> Value
) throws(RegistryError) -> Value {
    guard let file = try? FileDescriptor.open(path, flags, mode: 0o600) else { return try body() }
    _ = try? file.lock(.exclusive)
    // A use at the end: behind its last one it would be closed, and the lock gone.
    defer { try? file.unlock() }
    return try body()
}

func splitPath(_ path: ByteString) -> (directory: ByteString, name: ByteString) {
    guard let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")) else { return (".", path) }
    return (slash == 0 ? "/" : ByteString(path.bytes[..<slash]), ByteString(path.bytes[(slash + 1)...]))
}

/// For the owner alone.
func makePrivateDirectories(_ path: ByteString) throws(SystemError) {
    guard path != "/", path != ".", try FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true) == nil else { return }
    try makePrivateDirectories(splitPath(path).directory)
    _ = try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: path, mode: 0o700)
}
