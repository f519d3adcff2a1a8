public import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing

/// Why a tree cannot be made bootable, or its files cannot be labelled.
public enum BootTransformError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A directory that a bootable image needs is missing.
    case missingDirectory(ByteString)
    /// Another kind of file has the name of a directory.
    case notADirectory(ByteString)
    /// The SELinux policy is incomplete or cannot be read: the file or directory, and the fault.
    case policy(path: ByteString, PolicyFault)
    /// A line (counted from 1) of a file of the SELinux policy.
    case policyLine(path: ByteString, line: Int, PolicyLineFault)
    /// A pattern of the policy could not be matched with a path.
    case match(policy: ByteString, line: Int, path: ByteString, PatternFault)
    /// One of several names of a file cannot get a copy with a label of its own.
    case cannotLabel(ByteString, FileTreeError)
    /// The path of a file, shortened, is longer than paths that are labelled.
    case pathTooLong(ByteString)

    public var description: String {
        switch self {
        case .missingDirectory(let path): "no directory \(path) in the image, so it cannot be made bootable"
        case .notADirectory(let path): "\(path) in the image is no directory"
        case .policy(let path, let fault): "SELinux policy: \(path): \(fault)"
        case .policyLine(let path, let line, let fault): "SELinux policy: \(path), line \(line): \(fault)"
        case .match(let policy, let line, let path, let fault):
            "SELinux policy: \(policy), line \(line): its pattern cannot be tried on \"\(path)\": \(fault)"
        case .cannotLabel(let name, let error): "SELinux policy: \(name): \(error)"
        case .pathTooLong(let path):
            "a path of more than \(BootLimits.pathBytes) bytes cannot be labelled; it begins with \"\(path)\""
        }
    }
}

/// Why a file or directory of an SELinux policy cannot be used.
public enum PolicyFault: Hashable, Sendable, CustomStringConvertible {
    /// `/etc/selinux/config` names no directory below `/etc/selinux`.
    case invalidType(ByteString)
    /// A file of the policy that `/etc/selinux/config` names does not exist.
    case missing(policy: ByteString)
    /// Both in bytes.
    case tooLarge(size: UInt64, limit: Int)
    case notRegularFile
    /// The content cannot be read; the text of the caller's error.
    case unreadable(String)
    /// The directory holds no file with this content.
    case noFile(ObjectID)
    /// The file had other content when the directory was read.
    case changed

    public var description: String {
        switch self {
        case .invalidType(let type): "SELINUXTYPE=\(type) names no directory of a policy"
        case .missing(let policy): "missing, but /etc/selinux/config asks for the policy \"\(policy)\""
        case .tooLarge(let size, let limit): "\(size) bytes; at most \(limit) are read"
        case .notRegularFile: "is no regular file"
        case .unreadable(let text): text
        case .noFile(let id): "holds no file with the digest \(id)"
        case .changed: "it changed while it was being read"
        }
    }
}

/// Why a line of an SELinux policy cannot be used (selabel_file(5)).
public enum PolicyLineFault: Hashable, Sendable, CustomStringConvertible {
    /// The limit on the number of lines of all files.
    case tooManyLines(limit: Int)
    case patternWithoutLabel
    case typeWithoutLabel
    case unknownFileType(ByteString)
    case textAfterLabel(ByteString)
    case aliasWithoutPath
    case textAfterAlias
    case tooManyAliases(limit: Int)
    case containsNUL
    /// The limit in bytes.
    case fieldTooLong(limit: Int)
    case pattern(PatternFault)

    public var description: String {
        switch self {
        case .tooManyLines(let limit): "more than \(limit) lines in all"
        case .patternWithoutLabel: "a pattern without a label"
        case .typeWithoutLabel: "a pattern and a file type without a label"
        case .unknownFileType(let type): "\"\(type)\" is no file type (-b, -c, -d, -p, -l, -s or --)"
        case .textAfterLabel(let label): "something follows the label \"\(label)\""
        case .aliasWithoutPath: "an alias without the path that it stands for"
        case .textAfterAlias: "something follows the two paths"
        case .tooManyAliases(let limit): "more than \(limit) aliases"
        case .containsNUL: "a NUL byte: this is no text"
        case .fieldTooLong(let limit): "a field of more than \(limit) bytes"
        case .pattern(let fault): "\(fault)"
        }
    }
}

/// Why PCRE2 cannot compile or match a pattern.
public enum PatternFault: Hashable, Sendable, CustomStringConvertible, Error {
    case outOfMemory
    /// `pcre2_compile(3)` refuses the pattern: its code and text, and the offset in bytes.
    case syntax(code: Int32, text: String, offset: Int, pattern: ByteString)
    /// The limit on all compiled patterns together, in bytes.
    case tooLarge(limit: Int)
    /// `pcre2_match(3)` fails: its code and text.
    case match(code: Int32, text: String)

    public var description: String {
        switch self {
        case .outOfMemory: "out of memory"
        case .syntax(_, let text, let offset, let pattern): "\(text) (at byte \(offset) of \"\(pattern)\")"
        case .tooLarge(let limit): "the patterns are too large: more than \(limit >> 20) MiB compiled"
        case .match(_, let text): text
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
