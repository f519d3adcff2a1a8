package import ComposefsBytes
import ComposefsLinuxSystem
import Glibc

/// A directory in memory for this process, which is emptied at the start of the next one.
package enum Scratch {
    package static let path: ByteString = {
        let parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
        let path = "\(parent)/cfsoci-fuzz-\(getpid())"
        remove(ByteString(path))
        mkdir(path, 0o700)
        atexit { Scratch.remove(Scratch.path) }
        return ByteString(path)
    }()

    /// Removes a directory and everything below it, without following symbolic links.
    package static func remove(_ path: ByteString) {
        var pending = [path]
        var directories: [ByteString] = []
        while let next = pending.popLast() {
            guard let directory = try? FileDescriptor.open(next, [.readOnly, .directory, .noFollow]) else {
                try? FileDescriptor.currentDirectory.unlink(at: next)
                continue
            }
            directories.append(next)
            for entry in (try? directory.entries()) ?? [] {
                if entry.kind == .directory {
                    pending.append(next + "/" + entry.name)
                } else {
                    try? directory.unlink(at: entry.name)
                }
            }
        }
        for directory in directories.reversed() { try? FileDescriptor.currentDirectory.removeDirectory(at: directory) }
    }

    /// Makes the parent directories, too.
    package static func write(_ path: ByteString, _ bytes: [UInt8]) {
        for index in path.bytes.indices.dropFirst() where path.bytes[index] == UInt8(ascii: "/") {
            _ = try? FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: ByteString(Array(path.bytes[..<index])))
        }
        try? FileDescriptor.open(path, [.writeOnly, .create, .truncate], mode: 0o644).writeAll(bytes)
    }
}

/// Messages are one line of printable text, whatever the input was.
package func requirePrintable(_ error: any Error) {
    let text = String(describing: error)
    precondition(
        !text.isEmpty && text.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) },
        "unprintable: \(Array(text.utf8))")
}
