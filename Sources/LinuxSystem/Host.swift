public import ComposefsBytes
internal import ComposefsCLinux

/// Information about the machine and the process.
public enum Host {
    /// The kernel's random identifier of this boot, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`; nil if /proc is not mounted.
    public static func bootID() -> String? {
        guard let file = try? FileDescriptor.open("/proc/sys/kernel/random/boot_id", .readOnly),
            let bytes = try? file.readAll(limit: 128), let text = ByteString(bytes).utf8Text
        else { return nil }
        let id = text.prefix { !$0.isWhitespace }
        return id.isEmpty ? nil : String(id)
    }

    /// How the kernel treats built-in signatures of fs-verity.
    public enum VeritySignatures: Hashable, Sendable {
        /// The kernel was built without CONFIG_FS_VERITY_BUILTIN_SIGNATURES: it stores signatures but does not check them.
        case unchecked
        /// The kernel opens a file that has a signature only if the signature is valid.
        case checked
        /// The kernel opens no file with fs-verity that lacks a valid signature (fs.verity.require_signatures is 1).
        case required
    }

    public static func veritySignatures() -> VeritySignatures {
        guard let file = try? FileDescriptor.open("/proc/sys/fs/verity/require_signatures", .readOnly),
            let bytes = try? file.readAll(limit: 16)
        else { return .unchecked }
        return bytes.first == UInt8(ascii: "0") ? .checked : .required
    }

    /// The number of processors that this process may use, at least 1.
    public static var processorCount: Int { max(1, cl_processor_count()) }

    /// Whether the process's user IDs are those of the machine: it is in no user namespace, or in one that maps every ID to itself. False
    /// if /proc is not mounted.
    public static var isInFirstUserNamespace: Bool {
        guard let file = try? FileDescriptor.open("/proc/self/uid_map", .readOnly), let bytes = try? file.readAll(limit: 65536) else {
            return false
        }
        let fields = bytes.split { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") }.map { String(decoding: $0, as: UTF8.self) }
        return fields == ["0", "0", "4294967295"]
    }

    /// Random letters and digits.
    public static func randomName(_ length: Int = 12) -> String {
        let alphabet: StaticString = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        var generator = SystemRandomNumberGenerator()
        return alphabet.withUTF8Buffer { letters in
            var name = ""
            for _ in 0..<max(0, length) {
                name.unicodeScalars.append(Unicode.Scalar(letters[Int.random(in: 0..<letters.count, using: &generator)]))
            }
            return name
        }
    }

    /// The machine's architecture as uname(2) reports it: `x86_64`, `aarch64`.
    public static var architecture: String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 66) { buffer in
            guard let start = buffer.baseAddress, cl_machine(start, buffer.count) == 0 else { return "unknown" }
            return String(cString: start)
        }
    }

    /// The release of the kernel, for example `6.12.1-amd64`; `unknown` if /proc is not mounted.
    public static var kernelRelease: String {
        guard let file = try? FileDescriptor.open("/proc/sys/kernel/osrelease", .readOnly), let bytes = try? file.readAll(limit: 256),
            let text = ByteString(bytes).utf8Text
        else { return "unknown" }
        return String(text.prefix { !$0.isWhitespace })
    }

    /// Creates a user namespace without a process in it. It maps `count` IDs from 0 to the caller's IDs from `first`.
    public static func makeUserNamespace(first: UInt32 = 0, count: UInt32 = 0) throws(SystemError) -> FileDescriptor {
        let result = cl_user_namespace(first, count)
        guard let raw = Int32(exactly: result), raw >= 0 else {
            throw SystemError(operation: "make a user namespace", errno: Errno(result: result))
        }
        return FileDescriptor(owning: raw)
    }

    public static var effectiveUserID: UInt32 { cl_effective_uid() }
    public static var effectiveGroupID: UInt32 { cl_effective_gid() }
    public static var processID: Int32 { cl_process_id() }

    /// The arguments of the process, with its name as the first. Unlike `CommandLine`, this works without /proc.
    public static var arguments: [ByteString] {
        (0..<cl_argument_count()).compactMap { index in cl_argument(index).map { bytes(of: $0) } }
    }

    /// Whether /proc is mounted. Without it, open files cannot be named and mounts cannot be listed.
    public static var hasProc: Bool { (try? FileDescriptor.open("/proc/self", [.pathOnly, .directory])) != nil }

    private static func bytes(of text: UnsafePointer<CChar>) -> ByteString {
        var count = 0
        while text[count] != 0 { count += 1 }
        return ByteString(UnsafeRawBufferPointer(start: text, count: count))
    }

    /// The value of an environment variable; nil if it is not set.
    public static func environment(_ name: String) -> ByteString? {
        cl_environment(name).map { bytes(of: $0) }
    }

    /// The current time as seconds and nanoseconds since 1970-01-01T00:00:00Z.
    public static func currentTime() -> (seconds: Int64, nanoseconds: UInt32) {
        var seconds: Int64 = 0
        var nanoseconds: UInt32 = 0
        _ = cl_realtime(&seconds, &nanoseconds)
        return (seconds, nanoseconds)
    }

    /// Nanoseconds on the monotonic clock, which never goes backwards.
    public static func monotonicNanoseconds() -> UInt64 {
        var seconds: Int64 = 0
        var nanoseconds: UInt32 = 0
        _ = cl_monotonic(&seconds, &nanoseconds)
        return UInt64(clamping: seconds) &* 1_000_000_000 &+ UInt64(nanoseconds)
    }

    /// Blocks the calling thread.
    public static func sleep(milliseconds: Int) { _ = cl_sleep(Int64(clamping: min(max(0, milliseconds), 1 << 40) * 1_000_000)) }

    /// Formats a time as RFC 3339 in UTC: `2026-11-21T04:33:49Z`. Years outside 0…9999 are clamped.
    public static func rfc3339(_ seconds: Int64) -> String { RFC3339.text(seconds) }
}
