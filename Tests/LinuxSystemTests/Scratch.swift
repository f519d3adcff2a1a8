import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc

/// Runs `body` in a new directory below the current temporary directory and removes that afterwards.
func withScratch<Result>(_ body: (borrowing FileDescriptor, ByteString) throws -> Result) throws -> Result {
    let folder = try TestFolder("linuxsystem")
    return try withExtendedLifetime(folder) { try body(try FileDescriptor.open(folder.path, [.readOnly, .directory]), folder.path) }
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
