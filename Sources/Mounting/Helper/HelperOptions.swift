public import ComposefsBytes
public import ComposefsLinuxSystem

/// The options of `mount -t composefs -o …`: those of mount.composefs(1), those that mount(8) passes on, and those of this project.
public struct HelperOptions: Sendable, Hashable {
    /// `basedir=`: directories of objects, in search order.
    public var objects: [ByteString] = []
    /// `digest=`: the required fs-verity digest of the image in hexadecimal, optionally prefixed with the algorithm and a colon.
    public var digest: ByteString?
    /// `verity`, `tryverity` or `noverity`; nil if none is given. With `repo=`, `verity` refuses a repository without fs-verity.
    public var verity: VerityChecking?
    /// `repo=`: the source is the name of an image in this repository.
    public var repository: ByteString?
    /// `bootable`: mount the boot image of an image in a repository.
    public var isBootable = false
    /// `remount`: change the attributes of an existing mount.
    public var isRemount = false
    public var isReadOnly = false
    /// Without further options, set-user-ID programs and device nodes are effective, as in mount(8).
    public var mount = MountOptions(attributes: [])
    /// Attributes that options clear, such as `suid`.
    public var clearedAttributes: MountAttributes = []
    /// Unknown options that were tolerated.
    public var ignored: [ByteString] = []

    public init() {}

    /// Adds a list of options, `a,b=c`. A backslash escapes the next byte; a value may be in double quotes.
    ///
    /// - Parameter sloppy: Whether unknown options are tolerated, as with `mount -s`.
    /// - Throws: `MountError.options`.
    public mutating func add(_ list: ByteString, sloppy: Bool = false) throws(MountError) {
        for option in Self.split(list) {
            guard try take(option) else {
                guard sloppy else { throw .options(.unknown(option.name)) }
                ignored.append(option.name)
                continue
            }
        }
    }

    /// Checks for missing and conflicting options. Call this after the last `add`.
    public func check() throws(MountError) {
        if isRemount { return }
        guard objects.isEmpty != (repository == nil) else {
            throw .options(repository == nil ? .noObjects : .objectsAndRepository)
        }
        guard !isBootable || repository != nil else { throw .options(.bootableWithoutRepository) }
        guard repository == nil || verity != VerityChecking.none else {
            throw .options(.noVerityInRepository)
        }
        guard (mount.upperDirectory == nil) == (mount.workDirectory == nil) else {
            throw .options(.upperOrWorkMissing)
        }
    }

    // MARK: Options one by one

    struct Option: Hashable {
        var name: ByteString
        /// Nil if there is no `=`.
        var value: ByteString?
        /// The value, split at colons without a backslash before them.
        var parts: [ByteString] = []
    }

    /// Applies an option. Returns whether it is known.
    private mutating func take(_ option: Option) throws(MountError) -> Bool {
        func value() throws(MountError) -> ByteString {
            guard let value = option.value, !value.isEmpty else { throw .options(.valueMissing(option.name)) }
            return value
        }
        switch option.name {
        case "basedir":
            _ = try value()
            objects = option.parts.filter { !$0.isEmpty }
            guard !objects.isEmpty else { throw .options(.emptyObjectList) }
        case "digest": digest = try value()
        case "verity": verity = .required
        case "tryverity": if verity != .required { verity = .ifSupported }
        case "noverity": verity = VerityChecking.none
        case "upperdir": mount.upperDirectory = try value()
        case "workdir": mount.workDirectory = try value()
        case "idmap": mount.idmap = try value()
        case "ro": isReadOnly = true
        case "rw": isReadOnly = false
        case "repo": repository = try value()
        case "bootable": isBootable = true
        case "remount": isRemount = true
        default: return takeGeneric(option)
        }
        return true
    }

    /// Applies an option that every file system has (mount(8), "filesystem-independent mount options").
    private mutating func takeGeneric(_ option: Option) -> Bool {
        if let attribute = Self.attributes[option.name] {
            mount.attributes.formUnion(attribute)
            clearedAttributes.subtract(attribute)
            // The values of the access-time setting exclude each other.
            if attribute == .noAccessTime { mount.attributes.remove(.strictAccessTime) }
            if attribute == .strictAccessTime { mount.attributes.remove(.noAccessTime) }
            return true
        }
        if let attribute = Self.clearing[option.name] {
            mount.attributes.subtract(attribute)
            clearedAttributes.formUnion(attribute)
            return true
        }
        return Self.meaningless.contains(option.name) || option.name.hasPrefix("x-") || option.name.hasPrefix("X-")
    }

    private static let attributes: [ByteString: MountAttributes] = [
        "nosuid": .noSetUserID, "nodev": .noDevices, "noexec": .noExecute, "noatime": .noAccessTime,
        "strictatime": .strictAccessTime, "nodiratime": .noDirectoryAccessTime, "nosymfollow": .noSymbolicLinks,
        // An ordinary user may mount the image, so it must not grant privileges.
        "user": [.noSetUserID, .noDevices, .noExecute], "users": [.noSetUserID, .noDevices, .noExecute],
        "owner": [.noSetUserID, .noDevices], "group": [.noSetUserID, .noDevices],
    ]

    private static let clearing: [ByteString: MountAttributes] = [
        "suid": .noSetUserID, "dev": .noDevices, "exec": .noExecute, "atime": .noAccessTime, "nostrictatime": .strictAccessTime,
        "relatime": [.noAccessTime, .strictAccessTime], "diratime": .noDirectoryAccessTime, "symfollow": .noSymbolicLinks,
    ]

    /// Options for mount(8), fstab or systemd, and options about writing, which have no meaning for an image. `loop`: loop devices are used
    /// when they are needed. `defaults` clears no attribute, as in mount(8).
    private static let meaningless: Set<ByteString> = [
        "", "defaults", "_netdev", "nofail", "auto", "noauto", "nouser", "nousers", "noowner", "nogroup", "comment", "async", "sync",
        "dirsync",
        "norelatime", "lazytime", "nolazytime", "iversion", "noiversion", "mand", "nomand", "silent", "loud", "loop",
    ]

    /// Splits a list at commas that are neither escaped nor quoted.
    static func split(_ list: ByteString) -> [Option] {
        var options: [Option] = []
        var current = Option(name: "")
        var isQuoted = false
        var isEscaped = false
        func append(_ byte: UInt8) {
            guard current.value != nil else { return current.name.bytes.append(byte) }
            current.value?.bytes.append(byte)
            current.parts[current.parts.count - 1].bytes.append(byte)
        }
        for byte in list.bytes {
            if isEscaped {
                isEscaped = false
                append(byte)
                continue
            }
            switch byte {
            case UInt8(ascii: "\\"): isEscaped = true
            case UInt8(ascii: "\"") where isQuoted: isQuoted = false
            case UInt8(ascii: "\"") where current.value?.isEmpty == true: isQuoted = true
            case UInt8(ascii: ",") where !isQuoted:
                options.append(current)
                current = Option(name: "")
            case UInt8(ascii: "=") where current.value == nil:
                current.value = ByteString()
                current.parts = [ByteString()]
            case UInt8(ascii: ":") where current.value != nil:
                current.value?.bytes.append(byte)
                current.parts.append(ByteString())
            default: append(byte)
            }
        }
        // A backslash at the end is an ordinary character.
        if isEscaped { append(UInt8(ascii: "\\")) }
        return options + [current]
    }
}
