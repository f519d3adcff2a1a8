internal import ComposefsBytes
internal import ComposefsLinuxSystem

/// Replaces the content of a file durably. Creates the file and its directories if they are missing, accessible by the owner only. A
/// symbolic link stays, and its target is replaced.
///
/// - Parameter keepsMode: whether an existing file keeps its permissions.
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

/// Runs `body` while holding a lock on the file or directory, which excludes other processes that do the same. If it cannot be opened or
/// locked, `body` runs without the lock.
func whileLocked<Value>(
    _ path: ByteString, _ flags: OpenFlags, _ body: () throws(RegistryError) -> Value
) throws(RegistryError) -> Value {
    guard let file = try? FileDescriptor.open(path, flags, mode: 0o600) else { return try body() }
    _ = try? file.lock(.exclusive)
    // Keeps the descriptor open, and with it the lock, until `body` has returned.
    defer { try? file.unlock() }
    return try body()
}

func splitPath(_ path: ByteString) -> (directory: ByteString, name: ByteString) {
    guard let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")) else { return (".", path) }
    return (slash == 0 ? "/" : ByteString(path.bytes[..<slash]), ByteString(path.bytes[(slash + 1)...]))
}

/// Creates missing directories, accessible by the owner only, with durable names.
func makePrivateDirectories(_ path: ByteString) throws(SystemError) {
    guard path != "/", path != ".", try FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true) == nil else { return }
    try makePrivateDirectories(splitPath(path).directory)
    guard try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: path, mode: 0o700) else { return }
    try FileDescriptor.open(path, [.readOnly, .directory]).syncName()
}
