package import ComposefsBytes
package import ComposefsHashing
package import ComposefsLinuxSystem

/// An invocation of `mount.composefs`, the program that mount(8) runs for file systems of type composefs: what its arguments ask for.
///
/// Several programs have it under that name. Which images a name means is theirs to know: see `run`.
package struct HelperInvocation: Sendable {
    /// The name by which the program is called.
    package static let name: ByteString = "mount.composefs"

    package private(set) var source: ByteString = ""
    package private(set) var target: ByteString = ""
    package private(set) var options = HelperOptions()
    /// The number of a process, or the file of a mount namespace, to mount in.
    package private(set) var namespace: ByteString?
    /// Everything is checked, and nothing is mounted.
    package private(set) var isFake = false
    package private(set) var isVerbose = false
    package private(set) var isHelp = false
    package private(set) var isVersion = false

    /// A fault of the arguments.
    package struct UsageError: Error, CustomStringConvertible {
        package var description: String

        package init(_ description: String) { self.description = description }
    }

    /// The helper's arguments; nil if the process is not the helper.
    ///
    /// - Parameter all: the arguments of the process, the first of which is its name.
    package static func arguments(_ all: [ByteString]) -> [ByteString]? {
        guard let program = all.first else { return nil }
        if program.bytes.split(separator: UInt8(ascii: "/")).last?.elementsEqual(name.bytes) == true { return Array(all.dropFirst()) }
        return all.dropFirst().first == name ? Array(all.dropFirst(2)) : nil
    }

    /// - Throws: `UsageError`, or `MountError.options`.
    package init(_ arguments: [ByteString]) throws {
        var lists: [ByteString] = []
        var operands: [ByteString] = []
        var isSloppy = false
        var isReadOnly: Bool?
        var rest = arguments[...]
        var onlyOperands = false
        while let argument = rest.popFirst() {
            guard !onlyOperands, argument.count > 1, argument.bytes.first == UInt8(ascii: "-") else {
                operands.append(argument)
                continue
            }
            switch argument {
            case "--": onlyOperands = true
            case "--help": isHelp = true
            case "--version": isVersion = true
            default:
                guard argument.bytes[1] != UInt8(ascii: "-") else { throw UsageError("unknown option \(argument)") }
                var letters = argument.bytes.dropFirst()
                while let letter = letters.popFirst() {
                    func value() throws -> ByteString {
                        defer { letters = [] }
                        if !letters.isEmpty { return ByteString(letters) }
                        guard let value = rest.popFirst() else {
                            throw UsageError("the option -\(ByteString([letter])) needs a value")
                        }
                        return value
                    }
                    switch letter {
                    case UInt8(ascii: "o"): lists.append(try value())
                    case UInt8(ascii: "t"): try Self.check(type: try value())
                    case UInt8(ascii: "N"): namespace = try value()
                    case UInt8(ascii: "s"): isSloppy = true
                    case UInt8(ascii: "f"): isFake = true
                    case UInt8(ascii: "v"): isVerbose = true
                    case UInt8(ascii: "r"): isReadOnly = true
                    case UInt8(ascii: "w"): isReadOnly = false
                    // The kernel's mount table is the only one.
                    case UInt8(ascii: "n"): break
                    case UInt8(ascii: "h"): isHelp = true
                    case UInt8(ascii: "V"): isVersion = true
                    default: throw UsageError("unknown option -\(ByteString([letter]))")
                    }
                }
            }
        }
        guard !isHelp, !isVersion else { return }
        for list in lists { try options.add(list, sloppy: isSloppy) }
        if let isReadOnly { options.isReadOnly = isReadOnly }
        guard operands.count == 2 else {
            throw UsageError(operands.count < 2 ? "an image and a directory are needed" : "too many arguments: \(operands[2])")
        }
        try options.check()
        (source, target) = (operands[0], operands[1])
    }

    private static func check(type: ByteString) throws {
        guard type == "composefs" || type.hasPrefix("composefs.") else {
            throw UsageError("file systems of type \(type) are not for this program")
        }
    }

    // MARK: Running

    /// Does what the invocation asks for, except help and version.
    ///
    /// - Parameters:
    ///   - note: prints a line for people.
    ///   - mountNamed: mounts an image of the repository `options.repository`, with these options, if it has this digest. If `isFake`, it only
    ///     looks whether that is possible. Returns what was mounted, and whether the kernel checks its files.
    package func run(
        note: (String) -> Void, mountNamed: (MountOptions, ObjectID?) throws -> (image: ObjectID, isChecked: Bool)
    ) throws {
        var mount = options.mount
        mount.readWrite = mount.upperDirectory != nil && !options.isReadOnly
        if !options.ignored.isEmpty, isVerbose {
            note("\(Self.name): ignored: \(options.ignored.map(\.description).joined(separator: ","))")
        }
        let digest = try options.digest.map { try Self.objectID($0) }
        if options.isRemount {
            guard !isFake else { return }
            let (on, off): (MountAttributes, MountAttributes) = options.isReadOnly ? (.readOnly, []) : ([], .readOnly)
            // An image is never writable, even if the mount has no read-only flag.
            try changeMount(at: target, set: mount.attributes.union(on), clear: options.clearedAttributes.union(off))
            return
        }
        if options.repository != nil {
            let (id, isChecked) = try mountNamed(mount, digest)
            if isVerbose, !isFake { note(report("\(source) (\(id))", isVerified: true, isChecked)) }
            return
        }
        guard !isFake else { return }
        // A path in the kernel's mount table must be absolute, so that a collection finds the file.
        mount.source = Self.absolute(source)
        let verity = options.verity ?? (digest == nil ? .none : .required)
        let isChecked = try mountImageFile(source, objects: options.objects, digest: digest, verity: verity, at: target, mount)
        if isVerbose { note(report("\(source)", isVerified: digest != nil, isChecked)) }
    }

    private func report(_ image: String, isVerified: Bool, _ isChecked: Bool) -> String {
        "\(Self.name): \(image) mounted on \(target); the image was \(isVerified ? "verified" : "not verified")"
            + ", the kernel \(isChecked ? "checks" : "does not check") files"
    }

    /// Moves this process into the namespace that the arguments name, if they do.
    package func enterNamespace() throws(SystemError) {
        guard let namespace else { return }
        let isNumber = !namespace.isEmpty && namespace.bytes.allSatisfy { (0x30...0x39).contains($0) }
        try FileDescriptor.open(isNumber ? "/proc/" + namespace + "/ns/mnt" : namespace, .readOnly).enterMounts()
    }

    private static func absolute(_ path: ByteString) -> ByteString {
        guard path.bytes.first != UInt8(ascii: "/"),
            let current = try? FileDescriptor.currentDirectory.readLink(at: "/proc/self/cwd")
        else { return path }
        return current == "/" ? current + path : current + "/" + path
    }

    /// `sha256:` and `sha512:` may precede the digits.
    private static func objectID(_ text: ByteString) throws(MountError) -> ObjectID {
        let parts = text.bytes.split(separator: UInt8(ascii: ":"), maxSplits: 1, omittingEmptySubsequences: false)
        if let digits = parts.last, let id = ObjectID(hex: digits) {
            if parts.count == 1 || parts[0].elementsEqual(id.algorithm.name.utf8) { return id }
        }
        throw .options(.digest(text))
    }

    /// The exit status of mount(8) for an error: 1 wrong arguments or no permission, 2 resources exhausted, 32 mount failure.
    package static func status(of error: any Error) -> Int32 {
        let system: SystemError
        switch error {
        case is UsageError, MountError.options, MountError.noRights: return 1
        case MountError.noLoopDevice: return 2
        case MountError.system(let error): system = error
        case let error as SystemError: system = error
        default: return 32
        }
        switch system.errno {
        case .outOfMemory, .tooManyOpenFiles, .fileTableFull, .noSpace: return 2
        case .accessDenied, .notPermitted: return 1
        default: return 32
        }
    }

    /// - Parameter names: what an image's name is if `repo=` is given.
    package static func usage(names: String) -> String {
        """
        Usage: mount.composefs IMAGE DIR [-fnrsvw] [-N NAMESPACE] [-t TYPE] [-o OPTION[,OPTION]…]
               mount -t composefs -o OPTION[,OPTION]… IMAGE DIR

        IMAGE is a file, or with repo= \(names). Options:
          basedir=DIR[:DIR]…   the directories of the objects
          digest=HEX           the fs-verity digest that the image must have; implies verity
          verity               the kernel checks every file's fs-verity digest against the image
          tryverity            the same if the kernel and the objects' file system support it
          noverity             files are not checked, and digest= is computed by reading the image
          upperdir=, workdir=  take what is changed
          idmap=PATH           a user namespace, /proc/PID/ns/user, whose ids the owners are mapped to
          ro, rw               with upperdir=: nothing may be changed; it may (default)
          repo=DIR             IMAGE is an image's name in this repository; files are verified if the repository has fs-verity,
                               and with verity one that has none is refused
          bootable             with repo=: the image for booting
        Also nosuid, nodev, noexec, noatime, nodiratime, nosymfollow, remount. A backslash before a comma, a colon or a backslash makes \
        it part of a path.
        """
    }
}
