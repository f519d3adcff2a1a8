public import ComposefsBytes
internal import ComposefsHTTPClient
internal import ComposefsLinuxSystem
internal import ComposefsOCIModel
internal import ComposefsTOML

/// The directories in which container tools store images on this machine, from containers-storage.conf(5), its drop-ins, and environment
/// variables.
public struct StorageConfiguration: Sendable {
    /// The directories to search for an image, in order.
    public private(set) var roots: [ByteString] = []
    /// The files and directories that were looked at, existing or not.
    public private(set) var paths: [ByteString] = []
    private let environment: Environment
    private var settings = Settings()
    private static let fileLimit = 1 << 20

    private struct Settings {
        var driver: String?
        var graphRoot: String?
        var imageStore: String?
        var rootlessPath: String?
        var additionalStores: [String] = []
    }

    /// Reads the configuration for this process.
    ///
    /// - Throws: `RegistryError` if a file cannot be used, or if the driver is not overlay.
    public init() throws { try self.init(.ofProcess) }

    init(_ environment: Environment) throws {
        self.environment = environment
        do { try readFiles() } catch let error as SystemError {
            throw RegistryError(.storageFiles(error))
        }
        // The environment variable overrides the configuration.
        if let driver = environment["STORAGE_DRIVER"] { settings.driver = driver }
        if let driver = settings.driver, !["", "overlay", "overlay2"].contains(driver) {
            throw RegistryError(.storageDriver(driver))
        }
        collectRoots()
    }

    // MARK: Locations

    private mutating func collectRoots() {
        add(environment["CONTAINERS_STORAGE_ROOT"].map { ByteString($0) })
        add(expanded(settings.imageStore))
        if let graphRoot = settings.graphRoot, !graphRoot.isEmpty {
            add(expanded(graphRoot))
        } else {
            if environment.userID != 0 { add(expanded(settings.rootlessPath)) }
            if let home = environment["HOME"] {
                if let data = environment["XDG_DATA_HOME"] { add(ByteString(data + "/containers/storage")) }
                add(ByteString(home + "/.local/share/containers/storage"))
            }
            add(ByteString(environment.systemRoot + "/var/lib/containers/storage"))
        }
        for store in settings.additionalStores { add(expanded(store)) }
        for option in environment["STORAGE_OPTS"]?.utf8.split(separator: UInt8(ascii: ",")) ?? [] {
            add(Self.imageStore(ofOption: ByteString(option)))
        }
    }

    /// The directory that an option of a driver names: `[DRIVER.]imagestore=DIR`, `additionalimagestore=DIR`.
    static func imageStore(ofOption option: ByteString) -> ByteString? {
        guard let sign = option.bytes.firstIndex(of: UInt8(ascii: "=")) else { return nil }
        let key = option.bytes[..<sign].drop { $0 == UInt8(ascii: " ") }
        let name = key.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).last ?? []
        guard ["imagestore", "additionalimagestore"].contains(where: { name.elementsEqual($0.utf8) }) else { return nil }
        return ByteString(option.bytes[(sign + 1)...])
    }

    private mutating func add(_ path: ByteString?) {
        guard let path, !path.isEmpty, !roots.contains(path) else { return }
        roots.append(path)
    }

    /// Expands the variables of a path: `$HOME`, `${HOME}`, and `$UID`, which the environment need not have.
    private func expanded(_ path: String?) -> ByteString? {
        guard let path, !path.isEmpty else { return nil }
        var result: [UInt8] = []
        var rest = Array(path.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "$") else {
                result.append(byte)
                continue
            }
            let name: ArraySlice<UInt8>
            if rest.first == UInt8(ascii: "{"), let end = rest.firstIndex(of: UInt8(ascii: "}")) {
                name = rest[(rest.startIndex + 1)..<end]
                rest = rest[(end + 1)...]
            } else {
                name = rest.prefix { ByteClass.isAlphanumeric($0) || $0 == UInt8(ascii: "_") }
                rest = rest[name.endIndex...]
            }
            let variable = String(decoding: name, as: UTF8.self)
            if variable == "UID" {
                result += "\(environment.userID)".utf8
            } else if let value = environment[variable] {
                result += value.utf8
            }
        }
        return ByteString(result)
    }

    // MARK: Files

    private enum Origin {
        /// For all users: its graphroot applies to root only.
        case system
        case user
    }

    private typealias File = (path: ByteString, origin: Origin)

    private mutating func readFiles() throws {
        if let path = environment["CONTAINERS_STORAGE_CONF"].map({ ByteString($0) }) {
            // A file that is given explicitly has to exist.
            try read(FileDescriptor.open(path, .readOnly), path, .user)
        } else {
            for (path, origin) in mainFiles {
                guard let file = try FileDescriptor.currentDirectory.openIfPresent(at: path, .readOnly) else { continue }
                try read(file, path, origin)
                break
            }
            for (path, origin) in try dropIns() { try read(FileDescriptor.open(path, .readOnly), path, origin) }
        }
        if let path = environment["CONTAINERS_STORAGE_CONF_OVERRIDE"].map({ ByteString($0) }) {
            try read(FileDescriptor.open(path, .readOnly), path, .user)
        }
    }

    private var userDirectory: String? {
        (environment["XDG_CONFIG_HOME"] ?? environment["HOME"].map { $0 + "/.config" }).map { $0 + "/containers" }
    }

    private var systemDirectories: [String] {
        [environment.systemRoot + "/usr/share/containers", environment.systemRoot + "/etc/containers"]
    }

    /// The first one that exists is read.
    private var mainFiles: [File] {
        var files: [File] = []
        if let userDirectory { files.append((path: ByteString(userDirectory + "/storage.conf"), origin: .user)) }
        for directory in systemDirectories.reversed() { files.append((path: ByteString(directory + "/storage.conf"), origin: .system)) }
        return files
    }

    /// Sorted by name. Of files with the same name, the one closer to the user counts.
    private mutating func dropIns() throws -> [File] {
        var directories: [(path: String, origin: Origin)] = []
        for parent in systemDirectories {
            directories.append((path: parent + "/storage.conf.d", origin: .system))
            if environment.userID == 0 {
                directories.append((path: parent + "/storage.rootful.conf.d", origin: .system))
            } else {
                let rootless = parent + "/storage.rootless.conf.d"
                directories += [(path: rootless, origin: .user), (path: "\(rootless)/\(environment.userID)", origin: .user)]
            }
        }
        if let userDirectory { directories.append((path: userDirectory + "/storage.conf.d", origin: .user)) }
        var found: [ByteString: File] = [:]
        paths += directories.map { ByteString($0.path) }
        for (path, origin) in directories {
            let flags: OpenFlags = [.readOnly, .directory]
            guard let directory = try FileDescriptor.currentDirectory.openIfPresent(at: ByteString(path), flags) else { continue }
            for entry in try directory.entries() where entry.kind == .regular && entry.name.bytes.suffix(5).elementsEqual(".conf".utf8) {
                found[entry.name] = (path: ByteString(path + "/") + entry.name, origin: origin)
            }
        }
        return found.sorted { $0.key < $1.key }.map(\.value)
    }

    private mutating func read(_ file: borrowing FileDescriptor, _ path: ByteString, _ origin: Origin) throws {
        paths.append(path)
        let root: TOMLValue
        do { root = try TOML.parse(file.readAll(limit: Self.fileLimit)) } catch let error as TOMLError {
            throw RegistryError(.storageConfiguration(path, line: error.line, .syntax(error.reason)))
        }
        guard let storage = root["storage"] else { return }
        func problem(_ value: TOMLValue, _ key: String, _ expected: String) -> RegistryError {
            RegistryError(.storageConfiguration(path, line: value.line, .value(key: key, expected: expected)))
        }
        func text(_ key: String, in table: TOMLValue) throws(RegistryError) -> String? {
            guard let value = table[key] else { return nil }
            guard let text = value.string else { throw problem(value, key, "a string") }
            return text
        }
        if let driver = try text("driver", in: storage) { settings.driver = driver }
        if let path = try text("rootless_storage_path", in: storage) { settings.rootlessPath = path }
        if origin == .user || environment.userID == 0 {
            if let path = try text("graphroot", in: storage) { settings.graphRoot = path }
            if let path = try text("imagestore", in: storage) { settings.imageStore = path }
        }
        guard let stores = storage["options"]?["additionalimagestores"] else { return }
        guard let elements = stores.array else {
            throw problem(stores, "additionalimagestores", "a list of paths")
        }
        var listed: [String] = []
        var appends = false
        for element in elements {
            // `{append=true}` in a drop-in keeps the list of earlier files.
            if let flag = element["append"]?.boolean {
                appends = flag
            } else if let path = element.string {
                listed.append(path)
            } else {
                throw problem(element, "additionalimagestores", "a list of paths")
            }
        }
        settings.additionalStores = appends ? settings.additionalStores + listed : listed
    }
}
