import ComposefsBootFormats
package import ComposefsBytes
import ComposefsLinuxSystem

/// The options of the program.
package struct SetupRootArguments: Equatable {
    /// The disk with the repository, in whose place the image is put.
    package var sysroot: ByteString = "/sysroot"
    package var configuration = SetupRootConfiguration.path
    /// Kernel arguments instead of those of `/proc/cmdline`.
    var line: ByteString?
    /// What help and version print; nothing else happens then.
    var answer: String?

    /// Wrong usage.
    package struct Fault: Error, CustomStringConvertible {
        package var description: String
    }

    /// - Parameter arguments: those of the process, without its name.
    package init(_ arguments: [ByteString]) throws(Fault) {
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            let parts = argument.bytes.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            let option = ByteString(parts[0])
            func value(mayBeEmpty: Bool = false) throws(Fault) -> ByteString {
                guard let value = parts.count == 2 ? ByteString(parts[1]) : rest.popFirst(), mayBeEmpty || !value.isEmpty else {
                    throw Fault(description: "\(option) needs a value")
                }
                return value
            }
            switch option {
            case "--sysroot": sysroot = try value()
            case "--config": configuration = try value()
            case "--cmdline": line = try value(mayBeEmpty: true)
            case "--help" where parts.count == 1, "-h" where parts.count == 1: answer = Self.help
            case "--version" where parts.count == 1: answer = "\(SetupRoot.name) (cfsoci) \(SetupRoot.version)"
            default:
                throw Fault(
                    description: "\(argument.bytes.first == UInt8(ascii: "-") ? "unknown option" : "unexpected argument") \(argument)")
            }
        }
        // What is mounted there is replaced.
        guard sysroot.bytes.contains(where: { $0 != UInt8(ascii: "/") }) else { throw Fault(description: "--sysroot must not be /") }
    }

    /// The arguments that the machine, or `--cmdline`, names.
    func kernelArguments() throws(Refusal) -> KernelCommandLine {
        if let line { return KernelCommandLine(parsing: line.bytes) }
        do throws(SystemError) {
            return KernelCommandLine(parsing: try FileDescriptor.open("/proc/cmdline", .readOnly).readAll(limit: 1 << 16))
        } catch {
            throw Refusal("the kernel arguments are unknown: \(error)")
        }
    }

    private static let help = """
        Usage: cfsoci-setup-root [--sysroot DIR] [--config FILE] [--cmdline ARGUMENTS]

        Puts the image that the kernel argument composefs= or composefs.digest= names in the place of the disk at DIR, which has the repository
        (DIR/composefs) and the state of deployments (DIR/state/deploy). Run by the initial RAM disk.

          --sysroot DIR         where the disk is mounted (/sysroot)
          --config FILE         what is mounted on /, /etc and /var (\(SetupRootConfiguration.path))
          --cmdline ARGUMENTS   kernel arguments instead of those of /proc/cmdline
          --help, --version
        """
}
