public import ComposefsBytes
public import ComposefsLinuxSystem

/// A feature of the host, which was tried.
public struct Feature: Sendable, Hashable {
    public enum State: String, Sendable, Hashable {
        case yes, no
        /// It could not be tried, usually for lack of privileges.
        case unknown
    }

    /// In camelCase, for programs. Never changes.
    public var name: String
    /// For users.
    public var title: String
    public var state: State
    /// The reason for the state, or details; may be empty.
    public var detail: String
    /// The effect of the feature's absence.
    public var without: String
    /// Related numbers, by names in camelCase.
    public var numbers: [String: Int] = [:]
    /// Related facts, by names in camelCase.
    public var flags: [String: Bool] = [:]
}

/// An image and its objects, for trying a kernel's features.
public struct FeatureSample: Sendable {
    /// An EROFS image with two files in its root, whose content is in objects.
    public var image: [UInt8]
    /// A file whose object matches the image. The object's path is relative to `objects`.
    public var good: (name: ByteString, object: ByteString, content: [UInt8])
    /// A file whose object has the right size but other content.
    public var bad: (name: ByteString, object: ByteString, content: [UInt8])
    /// The kernel's number of the fs-verity algorithm of the image's digests.
    public var algorithm: UInt8

    public init(
        image: [UInt8], good: (name: ByteString, object: ByteString, content: [UInt8]),
        bad: (name: ByteString, object: ByteString, content: [UInt8]), algorithm: UInt8
    ) {
        self.image = image
        self.good = good
        self.bad = bad
        self.algorithm = algorithm
    }
}

/// The features of this host for a repository in a directory.
public struct HostFeatures: Sendable {
    /// How images are mounted on this host.
    public enum Way: String, Sendable { case kernel, fuse, none }

    /// The directory in which the features were tried.
    public var path: ByteString
    /// The type of the directory's file system as in `/proc/self/mountinfo`; empty if it is not listed.
    public var fileSystem: ByteString
    public var kernelRelease: String
    /// How images of an insecure and of a secure repository are mounted.
    public var mounting: Way
    public var secureMounting: Way
    public var features: [Feature]
}

/// Tries the features of this host. A kernel's version is not enough: kernels have backported features and lack features that were disabled
/// when they were built.
///
/// Everything is tried in a temporary directory, which is removed, and with mounts that other processes cannot see.
///
/// - Parameter path: The directory that is, or will be, a repository.
/// - Throws: `SystemError` if the path is not a directory that can be opened.
public func probeFeatures(at path: ByteString, _ sample: FeatureSample) throws(SystemError) -> HostFeatures {
    let directory = try FileDescriptor.open(path, [.readOnly, .directory])
    var prober = FeatureProber(sample, in: directory)
    prober.probeFiles(in: directory)
    prober.probeMounts(in: directory)
    prober.probeFuse()
    prober.probeConfinement()
    let canServe: HostFeatures.Way = prober.state("fuse") == .yes ? .fuse : .none
    return HostFeatures(
        path: directory.kernelPath, fileSystem: (try? MountEntry.containing(directory))??.type ?? "",
        kernelRelease: Host.kernelRelease,
        mounting: prober.state("dataOnlyLayers") == .yes ? .kernel : canServe,
        secureMounting: prober.state("overlayVerity") == .yes ? .kernel : canServe, features: prober.features)
}

/// The features found so far.
struct FeatureProber {
    let sample: FeatureSample
    /// Whether files can be created in the directory.
    let writable: Bool
    private(set) var features: [Feature] = []

    init(_ sample: FeatureSample, in directory: borrowing FileDescriptor) {
        self.sample = sample
        writable = (try? Self.temporary(directory, [])) != nil
    }

    func state(_ name: String) -> Feature.State? { features.first { $0.name == name }?.state }

    /// The result of trying a feature.
    struct Outcome {
        var state: Feature.State
        var detail = ""
        var numbers: [String: Int] = [:]
        var flags: [String: Bool] = [:]

        static let yes = Outcome(state: .yes)
        static func yes(_ detail: String) -> Outcome { Outcome(state: .yes, detail: detail) }
        static func no(_ detail: String) -> Outcome { Outcome(state: .no, detail: detail) }
        static func unknown(_ detail: String) -> Outcome { Outcome(state: .unknown, detail: detail) }

        /// Missing privileges say nothing about the kernel.
        static func failure(_ error: SystemError) -> Outcome {
            error.errno == .notPermitted || error.errno == .accessDenied
                ? .unknown("not permitted (\(error))") : .no(error.description)
        }

        static func failure(_ error: MountError) -> Outcome {
            switch error {
            case .noRights(let error): .unknown("not permitted (\(error))")
            case .system(let error), .noLoopDevice(let error): .failure(error)
            case .image(let error, let kernel), .overlay(let error, let kernel):
                .no(kernel.isEmpty ? error.description : "\(error) (\(kernel))")
            default: .no(error.description)
            }
        }
    }

    mutating func add(_ name: String, _ title: String, without: String, _ outcome: Outcome) {
        features.append(
            Feature(
                name: name, title: title, state: outcome.state, detail: outcome.detail, without: without, numbers: outcome.numbers,
                flags: outcome.flags))
    }
}

// MARK: - FUSE and what confines processes

extension FeatureProber {
    mutating func probeFuse() {
        var passthrough = Outcome.unknown("FUSE could not be tried")
        let fuse = tryFuse(&passthrough)
        add("fuse", "FUSE", without: "only processes that may mount can mount an image; `ls`, `cat` and `dump` work without mounting", fuse)
        add("fusePassthrough", "FUSE passthrough", without: "file content is read through the process that serves the image", passthrough)
    }

    /// Creates a FUSE file system without attaching it. The kernel's first request lists its features.
    private func tryFuse(_ passthrough: inout Outcome) -> Outcome {
        let device: FileDescriptor
        do throws(SystemError) {
            device = try FileDescriptor.open("/dev/fuse", [.readWrite, .nonBlocking])
        } catch {
            return .failure(error)
        }
        let request: [UInt8]
        do throws(SystemError) {
            let context = try FileSystemContext("fuse")
            try context.set("fd", ByteString("\(device.raw)"))
            try context.set("rootmode", "40000")
            try context.set("user_id", ByteString("\(Host.effectiveUserID)"))
            try context.set("group_id", ByteString("\(Host.effectiveGroupID)"))
            try context.create()
            let mount = try context.mount(.readOnly)
            request = try firstRequest(device)
            // The connection ends with the last mount.
            _ = consume mount
        } catch {
            guard error.errno == .notPermitted else { return .failure(error) }
            passthrough = .no("needs CAP_SYS_ADMIN in the first user namespace")
            guard Self.isFirstUserNamespace else {
                return .no("not permitted in this mount namespace; permitted in a mount namespace of the user namespace (unshare -m)")
            }
            return Self.hasSetuidProgram("fusermount3")
                ? .yes("by fusermount3, which was not tried") : .no("not permitted, and fusermount3 is not installed")
        }
        guard request.count >= 60, request.word(at: 4) == 26 else { return .yes("the kernel's first request is not understood") }
        // struct fuse_init_in after the 40 bytes of struct fuse_in_header: major, minor, max_readahead, flags, flags2.
        let version = "protocol \(request.word(at: 40)).\(request.word(at: 44))"
        let isExtended = request.word(at: 52) & 1 << 30 != 0
        let offers = isExtended && request.word(at: 56) & 1 << 5 != 0
        if !offers {
            passthrough = .no("the kernel does not offer it")
        } else if Host.hasCapability(.systemAdmin), Self.isFirstUserNamespace {
            passthrough = .yes
        } else {
            passthrough = .no("needs CAP_SYS_ADMIN in the first user namespace")
        }
        return .yes(version)
    }

    private func firstRequest(_ device: borrowing FileDescriptor) throws(SystemError) -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        var failure: SystemError?
        var count = 0
        buffer.withUnsafeMutableBytes { bytes in
            do throws(SystemError) { count = try device.read(into: bytes) } catch { failure = error }
        }
        if let failure { throw failure }
        return Array(buffer.prefix(count))
    }

    private static func hasSetuidProgram(_ name: ByteString) -> Bool {
        let path = Host.environment("PATH") ?? "/usr/bin:/bin"
        return path.bytes.split(separator: UInt8(ascii: ":")).contains { directory in
            let file = ByteString(directory) + "/" + name
            let status = try? FileDescriptor.currentDirectory.status(at: file, follow: true)
            return status.map { $0.permissions & 0o4111 == 0o4111 } ?? false
        }
    }

    /// Whether all IDs map to themselves, which is true only in the initial user namespace.
    private static var isFirstUserNamespace: Bool {
        guard let map = try? FileDescriptor.open("/proc/self/uid_map", .readOnly).readAll(limit: 4096) else { return false }
        let words = String(decoding: map, as: UTF8.self).split(whereSeparator: \.isWhitespace)
        return words == ["0", "0", "4294967295"]
    }

    mutating func probeConfinement() {
        let namespaces: Outcome
        do throws(SystemError) {
            _ = try Host.makeUserNamespace()
            namespaces = .yes
        } catch {
            namespaces = error.errno == .notPermitted || error.errno == .accessDenied ? .no("not permitted (\(error))") : .failure(error)
        }
        add(
            "userNamespaces", "User namespaces",
            without: "without root, FUSE needs fusermount3, and owners cannot be mapped to a namespace",
            namespaces)
        let landlock: Outcome
        do throws(SystemError) {
            let version = try LandlockRuleset.version()
            landlock = Outcome(state: .yes, detail: "ABI \(version)", numbers: ["abi": version])
        } catch {
            landlock = .no(error.errno == .notSupported ? "it is disabled (lsm=)" : error.description)
        }
        add(
            "landlock", "Landlock",
            without: "what commands read and write is not limited; seccomp and capabilities still confine them", landlock)
    }
}

extension [UInt8] {
    /// Four bytes in the machine's byte order, as in FUSE; 0 past the end.
    fileprivate func word(at offset: Int) -> UInt32 {
        guard offset >= 0, offset + 4 <= count else { return 0 }
        return withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self) }
    }
}
