public import ComposefsBytes
public import ComposefsLinuxSystem

/// What the options of `mount -t composefs -o …` ask for: those of mount.composefs(1), what mount(8) itself hands on, and ours.
public struct HelperOptions: Sendable, Hashable {
    /// `basedir=`: directories of objects, the first to be looked through first.
    public var objects: [ByteString] = []
    /// `digest=`: what the image's fs-verity digest must be, hexadecimal, perhaps with the algorithm's name and a colon before it.
    public var digest: ByteString?
    /// `verity`, `tryverity`, `noverity`; nil where none of them is given. With `repo=`, `verity` refuses a repository without fs-verity.
    public var verity: VerityChecking?
    /// `repo=`: the source is an image's name in this repository.
    public var repository: ByteString?
    /// `bootable`: of an image in a repository the one for booting.
    public var isBootable = false
    /// `remount`: change the attributes of what is mounted.
    public var isRemount = false
    public var isReadOnly = false
    /// Without further options as mount(8) has it: set-user-ID programs and device nodes have their effect.
    public var mount = MountOptions(attributes: [])
    /// Attributes that options take back, as `suid`.
    public var clearedAttributes: MountAttributes = []
    /// Options that were not known, where that is tolerated.
    public var ignored: [ByteString] = []

    public init() {}

    /// Takes a list of options, `a,b=c`. A backslash makes the next byte ordinary; a value may be in double quotes.
    ///
    /// - Parameter sloppy: Tolerate unknown options, as mount(8)'s `-s`.
    public mutating func add(_ list: ByteString, sloppy: Bool = false) throws(MountError) {
        for option in Self.split(list) {
            guard try take(option) else {
                guard sloppy else { throw .options(.unknown(option.name)) }
                ignored.append(option.name)
                continue
            }
        }
    }

    /// Fails where options are missing or exclude each other; to be called after the last one.
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
        /// Nil where there is no `=`.
        var value: ByteString?
        /// The value parted at colons that no backslash stands before.
        var parts: [ByteString] = []
    }

    /// Whether the option is known.
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

    /// What every file system takes (mount(8), "filesystem-independent mount options").
    private mutating func takeGeneric(_ option: Option) -> Bool {
        if let attribute = Self.attributes[option.name] {
            mount.attributes.formUnion(attribute)
            clearedAttributes.subtract(attribute)
            // The values of the time of access exclude each other.
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
        // An ordinary user may mount it, so it must give nobody rights.
        "user": [.noSetUserID, .noDevices, .noExecute], "users": [.noSetUserID, .noDevices, .noExecute],
        "owner": [.noSetUserID, .noDevices], "group": [.noSetUserID, .noDevices],
    ]

    private static let clearing: [ByteString: MountAttributes] = [
        "suid": .noSetUserID, "dev": .noDevices, "exec": .noExecute, "atime": .noAccessTime, "nostrictatime": .strictAccessTime,
        "relatime": [.noAccessTime, .strictAccessTime], "diratime": .noDirectoryAccessTime, "symfollow": .noSymbolicLinks,
    ]

    /// For mount(8), fstab or systemd; or about writing, which an image does not do. `loop`: loop devices are used where they are needed.
    /// `defaults` takes nothing back, as for mount(8).
    private static let meaningless: Set<ByteString> = [
        "", "defaults", "_netdev", "nofail", "auto", "noauto", "nouser", "nousers", "noowner", "nogroup", "comment", "async", "sync",
        "dirsync",
        "norelatime", "lazytime", "nolazytime", "iversion", "noiversion", "mand", "nomand", "silent", "loud", "loop",
    ]

    /// Parts a list at commas that neither a backslash nor quotes protect.
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
        // A backslash at the end stands for itself.
        if isEscaped { append(UInt8(ascii: "\\")) }
        return options + [current]
    }
}
