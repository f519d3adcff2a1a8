import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc

/// Runs `body` in a new directory below the temporary directory and removes the directory afterwards.
func withScratch<Result>(_ body: (borrowing FileDescriptor, ByteString) throws -> Result) throws -> Result {
    let folder = try TestFolder("linuxsystem")
    return try withExtendedLifetime(folder) { try body(try FileDescriptor.open(folder.path, [.readOnly, .directory]), folder.path) }
}

/// The bytes of a file of at most 16 MiB.
func content(_ directory: borrowing FileDescriptor, _ path: ByteString) throws -> [UInt8] {
    try directory.open(at: path, .readOnly).readAll(limit: 16 << 20)
}

/// The error that `body` throws, or nil.
func failure(_ body: () throws -> Void) -> SystemError? {
    do {
        try body()
        return nil
    } catch {
        return error as? SystemError
    }
}
