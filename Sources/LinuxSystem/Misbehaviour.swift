#if DEBUG
    internal import ComposefsBytes
    internal import Glibc
    internal import Synchronization
#endif

/// A parser of bytes of others that has been taken over, for tests of the confinement. Release builds contain nothing of it.
///
/// If the environment variable `CFSOCI_DEBUG_MISBEHAVE` names the stage, the first call tries what such a parser would: below the directory
/// `CFSOCI_DEBUG_MISBEHAVE_PATH`, with sockets, with programs. It writes to standard error what the kernel answered, in lines
/// `misbehaviour NAME ERRNO` with 0 for success, and the thread's lines of `/proc/thread-self/status` about capabilities and filters.
package enum Misbehaviour {
    package enum Stage: String {
        /// Archives of layers are parsed.
        case split
        /// The trees of layers are merged.
        case merge
        /// An EROFS image is parsed.
        case image
    }

    @inline(__always)
    package static func act(at stage: Stage) {
        #if DEBUG
            actIfAsked(at: stage)
        #endif
    }

    #if DEBUG
        private static let hasActed = Atomic<Bool>(false)

        private static func actIfAsked(at stage: Stage) {
            guard Host.environment("CFSOCI_DEBUG_MISBEHAVE") == ByteString(stage.rawValue),
                let directory = Host.environment("CFSOCI_DEBUG_MISBEHAVE_PATH")?.utf8Text,
                !hasActed.exchange(true, ordering: .relaxed)
            else { return }
            var lines: [String] = []
            func attempt(_ name: String, _ body: () -> Int32) {
                errno = 0
                let result = body()
                lines.append("misbehaviour \(name) \(result >= 0 ? 0 : errno)")
            }
            func opened(_ path: String, _ flags: Int32) -> Int32 {
                let file = open(path, flags, 0o600)
                if file >= 0 { close(file) }
                return file
            }
            func socketed(_ domain: Int32, _ type: Int32) -> Int32 {
                let made = socket(domain, type, 0)
                if made >= 0 { close(made) }
                return made
            }
            attempt("read") { opened(directory + "/present", O_RDONLY) }
            attempt("list") { opened(directory, O_RDONLY | O_DIRECTORY) }
            attempt("overwrite") { opened(directory + "/present", O_WRONLY) }
            attempt("truncate") { truncate(directory + "/present", 0) }
            attempt("create") { opened(directory + "/made", O_WRONLY | O_CREAT) }
            attempt("symlink") { symlink("/etc/passwd", directory + "/link") }
            attempt("directory") { mkdir(directory + "/below", 0o700) }
            attempt("rename") { rename(directory + "/present", directory + "/renamed") }
            attempt("unlink") { unlink(directory + "/present") }
            attempt("inet") { socketed(AF_INET, Int32(SOCK_STREAM.rawValue)) }
            attempt("unix") { socketed(AF_UNIX, Int32(SOCK_STREAM.rawValue)) }
            attempt("packet") { socketed(AF_PACKET, Int32(SOCK_DGRAM.rawValue)) }
            attempt("kill") { kill(getppid(), 0) }
            attempt("program") {
                var child: pid_t = 0
                var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("true"), nil]
                defer { free(arguments[0]) }
                let failure = posix_spawn(&child, "/bin/true", nil, nil, &arguments, nil)
                errno = failure
                if failure == 0 { waitpid(child, nil, 0) }
                return failure == 0 ? 0 : -1
            }
            attempt("mount") {
                do throws(SystemError) {
                    _ = try FileSystemContext("tmpfs")
                    return 0
                } catch {
                    errno = error.errno.rawValue
                    return -1
                }
            }
            let status = (try? FileDescriptor.open("/proc/thread-self/status", .readOnly).readAll(limit: 1 << 16)) ?? []
            lines += String(decoding: status, as: UTF8.self).split(separator: "\n").map(String.init).filter { line in
                ["CapPrm", "CapEff", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp:"].contains { line.hasPrefix($0) }
            }
            let text = lines.joined(separator: "\n") + "\n"
            _ = text.withCString { write(2, $0, strlen($0)) }
        }
    #endif
}
