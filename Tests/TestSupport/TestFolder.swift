package import ComposefsBytes
internal import ComposefsLinuxSystem

/// A directory for a test, which is removed with the value.
package final class TestFolder: Sendable {
    package let path: ByteString

    /// - Parameters:
    ///   - name: The prefix of its name.
    ///   - wantsVerity: Whether it should be on a file system with fs-verity, if `CFSOCI_TEST_VERITY_DIR` names one.
    ///   - mode: Its permissions.
    package init(_ name: String, wantsVerity: Bool = false, mode: UInt32 = 0o755) throws {
        let parent = wantsVerity ? TestFolder.parentWithVerity : TestFolder.parent
        path = parent + "/" + ByteString(name + "-" + Host.randomName(12))
        try FileDescriptor.makeDirectory(path, mode: mode)
    }

    deinit { try? removeTree(path) }

    package static var parent: ByteString { Host.environment("TMPDIR") ?? "/tmp" }
    package static var parentWithVerity: ByteString { Host.environment("CFSOCI_TEST_VERITY_DIR") ?? parent }
}

/// Removes a directory and everything below it, without following symlinks.
package func removeTree(_ path: ByteString) throws {
    try empty(FileDescriptor.open(path, [.readOnly, .directory, .noFollow]))
    try FileDescriptor.currentDirectory.removeDirectory(at: path)
}

/// Uses open directories, because paths may exceed the kernel's limit.
private func empty(_ directory: borrowing FileDescriptor) throws {
    for entry in try directory.entries() {
        if entry.kind == .directory {
            try empty(directory.open(at: entry.name, [.readOnly, .directory, .noFollow]))
            try directory.removeDirectory(at: entry.name)
        } else {
            try directory.unlink(at: entry.name)
        }
    }
}
