import ComposefsBytes
import ComposefsJSON
import ComposefsTestSupport
import Glibc

/// The output and exit status of a run of the real binary.
struct CommandResult: Sendable {
    var status: Int32
    var output: [UInt8]
    var error: String

    var text: String { String(decoding: output, as: UTF8.self) }
    var lines: [String] { text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init) }

    func json() throws -> JSONValue { try JSONValue.parse(output) }
}

struct RunFailure: Error, CustomStringConvertible {
    var description: String
}

/// The `cfsoci` that was built together with the tests.
enum Cfsoci {
    /// The folder of the test runner: the build's products.
    static let binary: String = {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        let runner = String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let folder = runner.split(separator: "/").dropLast().joined(separator: "/")
        return "/" + folder + "/cfsoci"
    }()

    @discardableResult
    static func run(_ arguments: [String], input: [UInt8]? = nil, environment: [String] = []) throws -> CommandResult {
        try launch(binary, arguments, input: input, environment: environment)
    }

    /// Runs the command and requires exit status 0.
    @discardableResult
    static func succeed(_ arguments: [String], input: [UInt8]? = nil) throws -> CommandResult {
        let result = try run(arguments, input: input)
        guard result.status == 0 else {
            throw RunFailure(description: "cfsoci \(arguments.joined(separator: " ")): status \(result.status): \(result.error)")
        }
        return result
    }
}

/// Runs a program. Collects standard output and error in files, because pipes could fill up.
func launch(_ program: String, _ arguments: [String], input: [UInt8]? = nil, environment: [String] = []) throws -> CommandResult {
    let folder = try TemporaryFolder()
    let (outPath, errorPath, inPath) = (folder.path + "/out", folder.path + "/err", folder.path + "/in")
    let pid = try start(program, arguments, output: outPath, error: errorPath, input: input.map { ($0, inPath) }, environment: environment)
    let status = wait(for: pid)
    return CommandResult(status: status, output: try readFile(outPath), error: String(decoding: try readFile(errorPath), as: UTF8.self))
}

/// Runs a script of bash; the binary is `$CFSOCI`.
func shell(_ script: String, _ arguments: [String] = [], environment: [String] = []) throws -> CommandResult {
    try launch("bash", ["-euo", "pipefail", "-c", script, "bash"] + arguments, environment: environment + ["CFSOCI=" + Cfsoci.binary])
}

/// The same, but requires exit status 0 and returns the output.
@discardableResult
func mustShell(_ script: String, _ arguments: [String] = [], environment: [String] = []) throws -> String {
    let result = try shell(script, arguments, environment: environment)
    guard result.status == 0 else { throw RunFailure(description: "\(script): status \(result.status): \(result.error)\(result.text)") }
    return result.text
}

func start(
    _ program: String, _ arguments: [String], output: String, error: String, input: ([UInt8], String)? = nil, environment: [String] = [],
    inOwnGroup: Bool = false
) throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    if let (bytes, path) = input {
        try writeFile(path, bytes)
        posix_spawn_file_actions_addopen(&actions, 0, path, O_RDONLY, 0)
    } else {
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    }
    posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, error, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    var argv = ([program] + arguments).map { strdup($0) } + [nil]
    var inherited: [String] = []
    var at = environ
    while let variable = at.pointee {
        let text = String(cString: variable)
        let name = text.prefix { $0 != "=" } + "="
        if !text.hasPrefix("CFSOCI_"), !environment.contains(where: { $0.hasPrefix(name) }) { inherited.append(text) }
        at += 1
    }
    if let home = environment.first(where: { $0.hasPrefix("HOME=") }) {
        acceptAllImages(home: String(home.dropFirst("HOME=".count)))
    } else {
        inherited.removeAll { $0.hasPrefix("HOME=") }
        inherited.append("HOME=" + Home.shared.path)
    }
    var envp = (inherited + environment).map { strdup($0) } + [nil]
    defer { (argv + envp).forEach { free($0) } }
    var pid: pid_t = 0
    // Do not inherit the signals that the test runner blocks or ignores.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigaddset(&signals, SIGINT)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    let group = inOwnGroup ? POSIX_SPAWN_SETPGROUP : 0
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | group))
    let failure = posix_spawnp(&pid, program, &actions, &attributes, &argv, &envp)
    guard failure == 0 else { throw RunFailure(description: "\(program): \(String(cString: strerror(failure)))") }
    return pid
}

/// The home of programs for which a test has none: nothing of the user's and the machine's configuration is used.
private enum Home {
    static let shared: TemporaryFolder = {
        guard let folder = try? TemporaryFolder() else { fatalError("no folder for the home of programs") }
        acceptAllImages(home: folder.path)
        atexit { removeTree(Home.shared.path) }
        return folder
    }()
}

/// Writes a signature policy that replaces that of the machine, unless the home has one or does not exist.
private func acceptAllImages(home: String) {
    guard access(home, F_OK) == 0 else { return }
    for folder in ["/.config", "/.config/containers"] { mkdir(home + folder, 0o700) }
    let path = home + "/.config/containers/policy.json"
    if access(path, F_OK) != 0 { try? writeFile(path, Array(#"{"default":[{"type":"insecureAcceptAnything"}]}"#.utf8)) }
}

/// The exit status, or 128 + signal, as in a shell.
func wait(for pid: pid_t) -> Int32 {
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0, errno == EINTR {}
    let signal = status & 0x7f
    return signal == 0 ? (status >> 8) & 0xff : 128 + signal
}

/// A folder that is removed with the value.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/var/tmp"
        var template = Array((base + "/cfsoci-test-XXXXXX").utf8CString)
        guard mkdtemp(&template) != nil else { throw RunFailure(description: "mkdtemp: \(String(cString: strerror(errno)))") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { removeTree(path) }
}

/// Removes a folder and everything below it, without following symlinks.
func removeTree(_ path: String) { try? ComposefsTestSupport.removeTree(ByteString(path)) }

func readFile(_ path: String) throws -> [UInt8] {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { throw RunFailure(description: "\(path): \(String(cString: strerror(errno)))") }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let count = read(descriptor, &buffer, buffer.count)
        if count < 0 { throw RunFailure(description: "\(path): \(String(cString: strerror(errno)))") }
        if count == 0 { return bytes }
        bytes.append(contentsOf: buffer[..<count])
    }
}

func writeFile(_ path: String, _ bytes: [UInt8]) throws {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    guard descriptor >= 0 else { throw RunFailure(description: "\(path): \(String(cString: strerror(errno)))") }
    defer { close(descriptor) }
    var start = 0
    while start < bytes.count {
        let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress?.advanced(by: start), $0.count - start) }
        guard count > 0 else { throw RunFailure(description: "\(path): \(String(cString: strerror(errno)))") }
        start += count
    }
}

/// All relative paths below a folder, sorted, including folders and symlinks.
func fileList(_ root: String, below relative: String = "") -> [String] {
    guard let folder = opendir(relative.isEmpty ? root : root + "/" + relative) else { return [] }
    defer { closedir(folder) }
    var list: [String] = []
    while let entry = readdir(folder) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name == "." || name == ".." { continue }
        let path = relative.isEmpty ? name : relative + "/" + name
        list.append(path)
        if Int32(entry.pointee.d_type) == Int32(DT_DIR) { list += fileList(root, below: path) }
    }
    return list.sorted()
}

/// The files of the tests.
enum Fixtures {
    static let folder: String = {
        let here = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
        return "/" + here + "/Fixtures"
    }()
}
