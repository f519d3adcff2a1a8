import Bytes
import Glibc
import LinuxSystem

/// Runs `body` in a new directory below the current temporary directory and removes that afterwards.
func withScratch<Result>(_ body: (borrowing FileDescriptor, ByteString) throws -> Result) throws -> Result {
    let parent = Host.environment("TMPDIR") ?? "/tmp"
    let path = parent + "/" + ByteString("linuxsystem-" + Host.randomName())
    try FileDescriptor.makeDirectory(path, mode: 0o755)
    defer { try? removeTree(path) }
    return try body(try FileDescriptor.open(path, [.readOnly, .directory]), path)
}

private func removeTree(_ path: ByteString) throws {
    let directory = try FileDescriptor.open(path, [.readOnly, .directory, .noFollow])
    for entry in try directory.entries() {
        if entry.kind == .directory {
            try removeTree(path + "/" + entry.name)
        } else {
            try directory.unlink(at: entry.name)
        }
    }
    try FileDescriptor.currentDirectory.removeDirectory(at: path)
}

/// The bytes of a file that is no larger than 16 MiB.
func content(_ directory: borrowing FileDescriptor, _ path: ByteString) throws -> [UInt8] {
    try directory.open(at: path, .readOnly).readAll(limit: 16 << 20)
}

/// The error that `body` throws, nil where it throws none.
func failure(_ body: () throws -> Void) -> SystemError? {
    do {
        try body()
        return nil
    } catch {
        return error as? SystemError
    }
}
