public import ComposefsBytes

/// Why a tree cannot be made bootable, or its files cannot be labelled.
public enum BootTransformError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A directory that a bootable image needs is missing.
    case missingDirectory(ByteString)
    /// Another kind of file has the name of a directory.
    case notADirectory(ByteString)
    /// The SELinux policy is incomplete or cannot be read: the file or directory, and what is wrong with it.
    case policy(path: ByteString, String)
    /// A line (counted from 1) of a file of the SELinux policy.
    case policyLine(path: ByteString, line: Int, String)
    /// A pattern of the policy could not be matched with a path.
    case match(policy: ByteString, line: Int, path: ByteString, String)
    /// The path of a file, shortened, is longer than paths that are labelled.
    case pathTooLong(ByteString)

    public var description: String {
        switch self {
        case .missingDirectory(let path): "no directory \(path) in the image, so it cannot be made bootable"
        case .notADirectory(let path): "\(path) in the image is no directory"
        case .policy(let path, let what): "SELinux policy: \(path): \(what)"
        case .policyLine(let path, let line, let what): "SELinux policy: \(path), line \(line): \(what)"
        case .match(let policy, let line, let path, let what):
            "SELinux policy: \(policy), line \(line): its pattern cannot be tried on \"\(path)\": \(what)"
        case .pathTooLong(let path):
            "a path of more than \(BootLimits.pathBytes) bytes cannot be labelled; it begins with \"\(path)\""
        }
    }
}

/// The limits of an image's SELinux policy. Policies in use have some 6,500 lines and 400 KiB.
package enum BootLimits {
    /// Size of one file of the policy, in bytes.
    package static let policyFileBytes = 32 << 20
    static let specifications = 100_000
    package static let aliases = 100_000
    /// Length of one pattern, alias or label, in bytes.
    static let fieldBytes = 4096
    /// All compiled patterns together, in bytes.
    static let compiledBytes = 64 << 20
    /// Length of a path that is labelled, in bytes.
    package static let pathBytes = 16 << 10
    /// Steps after which a match fails (PCRE2's default is ten times that).
    static let matchSteps: UInt32 = 1_000_000
    /// Memory of one match, in KiB.
    static let matchKibibytes: UInt32 = 16 << 10
    /// Depth of nested parentheses.
    static let nestedGroups: UInt32 = 100
}
