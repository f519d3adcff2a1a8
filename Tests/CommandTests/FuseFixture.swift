import Glibc
import Testing

/// A repository with a small image `tool`, and directories to mount at; at the end nothing is mounted and no server runs.
final class FuseFixture {
    let store: ContractStore
    let kernel: String
    let fuse: String

    init(_ store: ContractStore) {
        self.store = store
        kernel = store.folder.path + "/kernel"
        fuse = store.folder.path + "/fuse"
        for path in [kernel, fuse] { mkdir(path, 0o755) }
    }

    convenience init() throws {
        let store = try ContractStore()
        _ = try store.pull(FuseFixture.image, as: "docker.io/library/tool:latest")
        self.init(store)
    }

    deinit {
        for path in [kernel, fuse] { while umount2(path, Int32(MNT_DETACH)) == 0 {} }
        for pid in servers() { kill(pid, SIGKILL) }
    }

    func mount(_ arguments: [String] = [], image: String = "tool") throws {
        try mount(at: fuse, arguments, image: image)
    }

    func mount(at target: String, _ arguments: [String] = [], image: String = "tool") throws {
        let result = try store.run(["mount", "--fuse", image, target] + arguments)
        guard result.status == 0, result.output.isEmpty, result.error.isEmpty else {
            throw RunFailure(description: "mount --fuse: \(result.status) \(result.error)")
        }
    }

    /// Processes that serve images of this repository.
    func servers() -> [pid_t] {
        fileListOfProcesses().filter { pid in
            guard let line = try? readFile("/proc/\(pid)/cmdline") else { return false }
            let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            return words.contains("mount") && words.contains(store.path)
        }
    }

    /// Whether all servers end on their own within some seconds.
    func isQuiet() -> Bool {
        for _ in 0..<200 {
            if servers().isEmpty { return !isMounted(fuse) }
            usleep(25_000)
        }
        return false
    }

    func isMounted(_ path: String) -> Bool {
        let table = (try? readFile("/proc/self/mountinfo")).map { String(decoding: $0, as: UTF8.self) } ?? ""
        return table.split(separator: "\n").contains { $0.split(separator: " ").dropFirst(4).first == Substring(path) }
    }

    /// The file of an object.
    func objectPath(_ content: [UInt8]) throws -> String {
        let id = try #require(try store.object(with: content))
        return store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
    }

    static let big = [UInt8]((0..<500_000).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 >> 7) })

    static let image = LayoutBuilder(layers: [
        tarArchive([
            TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/small", mode: 0o640, uid: 5, gid: 6, content: [1, 2]),
            TarMember(name: "usr/tool", mode: 0o755, content: big),
            TarMember(name: "usr/other", mode: 0o644, content: Array(big.dropFirst())),
            TarMember(name: "usr/link", type: "2", link: "tool"), TarMember(name: "usr/hard", type: "1", link: "usr/tool"),
        ])
    ])
}

/// The IDs of all processes.
private func fileListOfProcesses() -> [pid_t] {
    guard let folder = opendir("/proc") else { return [] }
    defer { closedir(folder) }
    var list: [pid_t] = []
    while let entry = readdir(folder) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if let number = pid_t(name) { list.append(number) }
    }
    return list
}
