import ComposefsBytes
import ComposefsCommandSupport
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCI

/// `mount.composefs`: the program that mount(8) runs for file systems of type composefs, so that fstab lines and mount units of systemd
/// work. Used if the program is called by that name, or with that name as its first argument.
///
/// Exit statuses are those of mount(8): 0 success, 1 wrong arguments or no permission, 2 resources exhausted, 32 mount failure.
enum MountHelper {
    static let name: ByteString = "mount.composefs"

    /// The helper's arguments; nil if the process is not the helper.
    static func arguments(_ all: [ByteString]) -> [ByteString]? {
        guard let program = all.first else { return nil }
        if program.bytes.split(separator: UInt8(ascii: "/")).last?.elementsEqual(name.bytes) == true { return Array(all.dropFirst()) }
        return all.dropFirst().first == name ? Array(all.dropFirst(2)) : nil
    }

    /// A fault of the arguments.
    private struct UsageError: Error {
        var description: String
    }

    private struct Invocation {
        var source: ByteString = ""
        var target: ByteString = ""
        var options = HelperOptions()
        var namespace: ByteString?
        var isFake = false
        var isVerbose = false
        var isHelp = false
        var isVersion = false
    }

    static func run(_ arguments: [ByteString]) -> Int32 {
        var image: ByteString?
        var repository: ByteString?
        do {
            let invocation = try parse(arguments)
            repository = invocation.options.repository
            if repository != nil { image = invocation.source }
            if invocation.isHelp || invocation.isVersion {
                try Output.print(invocation.isHelp ? usage : "\(name) (cfsoci) \(Version.text)")
                try Output.flush()
                return 0
            }
            if let namespace = invocation.namespace { try enter(namespace) }
            if Sandbox.isWanted, Mount.isPrivileged {
                // `features` says what is active: scripts compare what mount(8)'s helpers print.
                _ = try Sandbox.apply(.mounting, repository: nil)
            }
            try mount(invocation)
            return 0
        } catch let error as UsageError {
            Output.fault("\(name): \(error.description); \(name) --help shows the options")
            return 1
        } catch {
            let message = ImageHints.message(of: error, image: image) {
                try repository.map { try Store.open($0, OpenOptions(readOnly: true)) }
            }
            Output.fault("\(name): \(message)")
            return status(of: error)
        }
    }

    /// The exit status as in mount(8).
    private static func status(of error: any Error) -> Int32 {
        let system: SystemError
        switch error {
        case MountError.options, MountError.noRights: return 1
        case MountError.noLoopDevice: return 2
        case MountError.system(let error): system = error
        case let error as SystemError: system = error
        case RepositoryError.system(let error): system = error
        default: return 32
        }
        switch system.errno {
        case .outOfMemory, .tooManyOpenFiles, .fileTableFull, .noSpace: return 2
        case .accessDenied, .notPermitted: return 1
        default: return 32
        }
    }

    // MARK: Arguments

    private static func parse(_ arguments: [ByteString]) throws -> Invocation {
        var invocation = Invocation()
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
            case "--help": invocation.isHelp = true
            case "--version": invocation.isVersion = true
            default:
                guard argument.bytes[1] != UInt8(ascii: "-") else { throw UsageError(description: "unknown option \(argument)") }
                var letters = argument.bytes.dropFirst()
                while let letter = letters.popFirst() {
                    func value() throws -> ByteString {
                        defer { letters = [] }
                        if !letters.isEmpty { return ByteString(letters) }
                        guard let value = rest.popFirst() else {
                            throw UsageError(description: "the option -\(ByteString([letter])) needs a value")
                        }
                        return value
                    }
                    switch letter {
                    case UInt8(ascii: "o"): lists.append(try value())
                    case UInt8(ascii: "t"): try check(type: try value())
                    case UInt8(ascii: "N"): invocation.namespace = try value()
                    case UInt8(ascii: "s"): isSloppy = true
                    case UInt8(ascii: "f"): invocation.isFake = true
                    case UInt8(ascii: "v"): invocation.isVerbose = true
                    case UInt8(ascii: "r"): isReadOnly = true
                    case UInt8(ascii: "w"): isReadOnly = false
                    // The kernel's mount table is the only one.
                    case UInt8(ascii: "n"): break
                    case UInt8(ascii: "h"): invocation.isHelp = true
                    case UInt8(ascii: "V"): invocation.isVersion = true
                    default: throw UsageError(description: "unknown option -\(ByteString([letter]))")
                    }
                }
            }
        }
        guard !invocation.isHelp, !invocation.isVersion else { return invocation }
        for list in lists { try invocation.options.add(list, sloppy: isSloppy) }
        if let isReadOnly { invocation.options.isReadOnly = isReadOnly }
        guard operands.count == 2 else {
            throw UsageError(description: operands.count < 2 ? "an image and a directory are needed" : "too many arguments: \(operands[2])")
        }
        try invocation.options.check()
        (invocation.source, invocation.target) = (operands[0], operands[1])
        return invocation
    }

    private static func check(type: ByteString) throws {
        guard type == "composefs" || type.hasPrefix("composefs.") else {
            throw UsageError(description: "file systems of type \(type) are not for this program")
        }
    }

    /// The number of a process, or the file of a namespace.
    private static func enter(_ namespace: ByteString) throws {
        let isNumber = !namespace.isEmpty && namespace.bytes.allSatisfy { (0x30...0x39).contains($0) }
        try FileDescriptor.open(isNumber ? "/proc/" + namespace + "/ns/mnt" : namespace, .readOnly).enterMounts()
    }

    // MARK: Mounting

    private static func mount(_ invocation: Invocation) throws {
        let options = invocation.options
        var mount = options.mount
        mount.readWrite = mount.upperDirectory != nil && !options.isReadOnly
        if !options.ignored.isEmpty, invocation.isVerbose {
            Output.note("\(name): ignored: \(options.ignored.map(\.description).joined(separator: ","))")
        }
        let digest = try options.digest.map { try objectID($0) }
        if options.isRemount {
            guard !invocation.isFake else { return }
            let (on, off): (MountAttributes, MountAttributes) = options.isReadOnly ? (.readOnly, []) : ([], .readOnly)
            // An image is never writable, even if the mount has no read-only flag.
            try changeMount(at: invocation.target, set: mount.attributes.union(on), clear: options.clearedAttributes.union(off))
            return
        }
        if let repository = options.repository {
            try mountNamed(invocation, mount, repository, digest)
        } else {
            guard !invocation.isFake else { return }
            // A path in the kernel's mount table must be absolute, so that a collection finds the file.
            mount.source = absolute(invocation.source)
            let verity = options.verity ?? (digest == nil ? .none : .required)
            let isChecked = try mountImageFile(
                invocation.source, objects: options.objects, digest: digest, verity: verity, at: invocation.target, mount)
            if invocation.isVerbose {
                Output.note(
                    "\(name): \(invocation.source) mounted on \(invocation.target); the image was \(digest == nil ? "not verified" : "verified")"
                        + ", the kernel \(isChecked ? "checks" : "does not check") files")
            }
        }
    }

    private static func absolute(_ path: ByteString) -> ByteString {
        guard path.bytes.first != UInt8(ascii: "/"),
            let current = try? FileDescriptor.currentDirectory.readLink(at: "/proc/self/cwd")
        else { return path }
        return current == "/" ? current + path : current + "/" + path
    }

    /// An image of a repository, by its name.
    private static func mountNamed(
        _ invocation: Invocation, _ options: MountOptions, _ repository: ByteString, _ digest: ObjectID?
    ) throws {
        let isRequired = invocation.options.verity == .required || GlobalOptions.environmentNeedsVerity
        let store = try Store.openUnchanged(repository, OpenOptions(requireVerity: isRequired, readOnly: invocation.isFake))
        let isBootable = invocation.options.isBootable
        guard !invocation.isFake else {
            _ = try store.openMountable(invocation.source, bootable: isBootable, digest: digest)
            return
        }
        let id = try store.mount(invocation.source, at: invocation.target, bootable: isBootable, digest: digest, options)
        if invocation.isVerbose {
            Output.note(
                "\(name): \(invocation.source) (\(id)) mounted on \(invocation.target); the image was verified, the kernel "
                    + "\(store.repository.isSecure ? "checks" : "does not check") files")
        }
    }

    /// `sha256:` and `sha512:` may precede the digits.
    private static func objectID(_ text: ByteString) throws -> ObjectID {
        let parts = text.bytes.split(separator: UInt8(ascii: ":"), maxSplits: 1, omittingEmptySubsequences: false)
        if let digits = parts.last, let id = ObjectID(hex: digits) {
            if parts.count == 1 || parts[0].elementsEqual(id.algorithm.name.utf8) { return id }
        }
        throw MountError.options(.digest(text))
    }

    private static let usage = """
        Usage: mount.composefs IMAGE DIR [-fnrsvw] [-N NAMESPACE] [-t TYPE] [-o OPTION[,OPTION]…]
               mount -t composefs -o OPTION[,OPTION]… IMAGE DIR

        IMAGE is a file, or with repo= what `cfsoci mount` takes. Options:
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
