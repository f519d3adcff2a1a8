package import ComposefsBytes
internal import ComposefsLinuxSystem

/// A directory of its own for a test, gone with the value.
package final class TestFolder: Sendable {
    package let path: ByteString

    /// - Parameters:
    ///   - name: the beginning of its name.
    ///   - wantsVerity: whether it is to be on a file system with fs-verity, where `CFSOCI_TEST_VERITY_DIR` names one.
    ///   - mode: its permissions.
    package init(_ name: String, wantsVerity: Bool = false, mode: UInt32 = 0o755) throws {
        let parent = wantsVerity ? TestFolder.parentWithVerity : TestFolder.parent
        path = parent + "/" + ByteString(name + "-" + Host.randomName(12))
        try FileDescriptor.makeDirectory(path, mode: mode)
    }

    deinit { try? removeTree(path) }

    package static var parent: ByteString { Host.environment("TMPDIR") ?? "/tmp" }
    package static var parentWithVerity: ByteString { Host.environment("CFSOCI_TEST_VERITY_DIR") ?? parent }
}

/// Removes a directory with all that is below it; follows no symlink.
package func removeTree(_ path: ByteString) throws {
    try empty(FileDescriptor.open(path, [.readOnly, .directory, .noFollow]))
    try FileDescriptor.currentDirectory.removeDirectory(at: path)
}

/// Relative to open directories, since paths may be longer than the kernel takes.
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
