import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// A repository with images, for tests of the interface that scripts rely on.
final class ContractStore: Sendable {
    let folder: TemporaryFolder
    let path: String

    /// An insecure repository, empty.
    init(_ options: [String] = []) throws {
        folder = try TemporaryFolder()
        path = folder.path + "/repo"
        try Cfsoci.succeed(["init", path, "--insecure", "--quiet"] + options)
    }

    /// With the small image of `LayoutBuilder`, as `t`.
    static func small(_ options: [String] = []) throws -> (store: ContractStore, image: ContractImage) {
        let store = try ContractStore(options)
        let image = try store.pull(LayoutBuilder.small(), as: "t")
        return (store, image)
    }

    func run(_ arguments: [String], input: [UInt8]? = nil, environment: [String] = []) throws -> CommandResult {
        try Cfsoci.run(arguments + ["--repo", path], input: input, environment: environment)
    }

    /// Runs the command and requires exit status 0 and an empty standard error.
    @discardableResult
    func succeed(_ arguments: [String], input: [UInt8]? = nil) throws -> CommandResult {
        let result = try run(arguments, input: input)
        guard result.status == 0, result.error.isEmpty else {
            throw RunFailure(description: "cfsoci \(arguments.joined(separator: " ")): status \(result.status): \(result.error)")
        }
        return result
    }

    /// Runs the command and requires an exit status, one line of error and an empty standard output. Returns the line without that prefix.
    func refuse(
        _ arguments: [String], input: [UInt8]? = nil, status: Int32 = 1, sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> String {
        let result = try run(arguments, input: input)
        return expectRefusal(result, status: status, sourceLocation: sourceLocation)
    }

    func layoutPath(_ name: String) -> String { folder.path + "/layout-" + name }

    func pull(_ builder: LayoutBuilder, as name: String) throws -> ContractImage {
        let manifest = try builder.write(to: layoutPath(name))
        try succeed(["pull", "oci:" + layoutPath(name), name])
        return try ContractImage(layout: layoutPath(name), manifest: manifest, layers: builder.layers)
    }

    func pull(_ parts: ContractLayout, as name: String) throws -> ContractImage {
        let manifest = try parts.write(to: layoutPath(name))
        try succeed(["pull", "oci:" + layoutPath(name), name])
        return try ContractImage(layout: layoutPath(name), manifest: manifest, layers: parts.layers)
    }

    /// Counts and names of everything in the repository, for comparison.
    var files: [String] { fileList(path) }

    /// The ID of the object with this content, found by reading all objects.
    func object(with content: [UInt8]) throws -> String? {
        for name in files where name.hasPrefix("objects/") && name.utf8.count > "objects/00/".utf8.count {
            if try readFile(path + "/" + name) == content { return String(name.dropFirst("objects/".count)).replacing("/", with: "") }
        }
        return nil
    }
}

/// The content of a layout, from its files.
struct ContractImage: Sendable {
    var manifest: String
    var manifestBytes: [UInt8]
    var config: String
    var configBytes: [UInt8]
    var layerDigests: [String]
    var layerSizes: [Int64]
    var layers: [[UInt8]]

    init(layout: String, manifest digest: ContentDigest, layers: [[UInt8]]) throws {
        func blob(_ digest: String) throws -> [UInt8] { try readFile(layout + "/blobs/" + digest.replacing(":", with: "/")) }
        manifest = digest.description
        manifestBytes = try blob(manifest)
        let document = try JSONValue.parse(manifestBytes)
        config = try #require(document["config"]?["digest"]?.string)
        configBytes = try blob(config)
        layerDigests = (document["layers"]?.array ?? []).compactMap { $0["digest"]?.string }
        layerSizes = (document["layers"]?.array ?? []).compactMap { $0["size"]?.int64 }
        self.layers = layers
    }

    var diffIDs: [String] { layers.map { ContentDigest.of($0).description } }
}

/// A layout of one manifest, with documents of the test.
struct ContractLayout {
    var config = #"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[DIFFIDS]}}"#
    var configType = "application/vnd.oci.image.config.v1+json"
    var layers: [[UInt8]] = []
    var layerType = "application/vnd.oci.image.layer.v1.tar"
    /// Further members of the manifest, each preceded by a comma.
    var manifestMembers = ""

    /// An artifact, whose blobs are not layers.
    static func artifact(_ content: String) -> ContractLayout {
        ContractLayout(
            config: "{}", configType: "application/vnd.oci.empty.v1+json", layers: [Array(content.utf8)], layerType: "text/plain",
            manifestMembers: #","artifactType":"application/vnd.example.note""#)
    }

    func write(to folder: String) throws -> ContentDigest {
        guard try launch("mkdir", ["-p", folder + "/blobs/sha256"]).status == 0 else { throw RunFailure(description: "mkdir \(folder)") }
        func blob(_ bytes: [UInt8]) throws -> String {
            let digest = ContentDigest.of(bytes)
            try writeFile(folder + "/blobs/sha256/" + digest.hex, bytes)
            return #""digest":"\#(digest)","size":\#(bytes.count)"#
        }
        let diffIDs = layers.map { "\"\(ContentDigest.of($0))\"" }.joined(separator: ",")
        let configFields = try blob(Array(config.replacing("DIFFIDS", with: diffIDs).utf8))
        let descriptors = try layers.map { #"{"mediaType":"\#(layerType)",\#(try blob($0))}"# }.joined(separator: ",")
        let type = "application/vnd.oci.image.manifest.v1+json"
        let manifest = Array(
            (#"{"schemaVersion":2,"mediaType":"\#(type)","config":{"mediaType":"\#(configType)",\#(configFields)},"#
                + #""layers":[\#(descriptors)]\#(manifestMembers)}"#).utf8)
        let fields = try blob(manifest)
        try writeFile(folder + "/oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
        try writeFile(folder + "/index.json", Array(#"{"schemaVersion":2,"manifests":[{"mediaType":"\#(type)",\#(fields)}]}"#.utf8))
        return ContentDigest.of(manifest)
    }
}

/// The exit status, nothing on standard output, one line of printable text that begins `cfsoci: error: `. Returns the rest of the line.
@discardableResult
func expectRefusal(_ result: CommandResult, status: Int32 = 1, sourceLocation: SourceLocation = #_sourceLocation) -> String {
    #expect(result.status == status, "\(result.text)\(result.error)", sourceLocation: sourceLocation)
    #expect(result.output.isEmpty, "\(result.text)", sourceLocation: sourceLocation)
    #expect(result.error.hasPrefix("cfsoci: error: ") && result.error.hasSuffix("\n"), "\(result.error)", sourceLocation: sourceLocation)
    let lines = result.error.split(separator: "\n")
    #expect(lines.count == 1, "\(result.error)", sourceLocation: sourceLocation)
    #expect(!hasControls(result.error.dropLast()), "\(Array(result.error.utf8))", sourceLocation: sourceLocation)
    return String((lines.first ?? "").dropFirst("cfsoci: error: ".count))
}

/// Whether the text contains characters that a terminal does not display as such.
func hasControls(_ text: some StringProtocol) -> Bool {
    text.unicodeScalars.contains { $0.value < 0x20 || (0x7f...0x9f).contains($0.value) || $0.value == 0xfffd }
}

/// Bare lower-case hex of a digest of the repository's algorithm, SHA-512 by default.
func isObjectID(_ text: String?, digits: Int = 128) -> Bool {
    guard let text else { return false }
    return text.utf8.count == digits && text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
}

/// An archive in which `placeholder`, in names of members, is replaced by bytes of the same length, with new checksums.
func replacingNames(_ archive: [UInt8], _ placeholder: String, with bytes: [UInt8]) -> [UInt8] {
    var archive = archive
    let wanted = Array(placeholder.utf8)
    guard wanted.count == bytes.count else { return archive }
    for block in stride(from: 0, to: archive.count, by: 512) where Array(archive[block + 257..<block + 262]) == Array("ustar".utf8) {
        for at in block..<block + 100 - wanted.count where Array(archive[at..<at + wanted.count]) == wanted {
            archive.replaceSubrange(at..<at + wanted.count, with: bytes)
        }
        archive.replaceSubrange(block + 148..<block + 156, with: Array("        ".utf8))
        let sum = archive[block..<block + 512].reduce(0) { $0 + Int($1) }
        let digits = String(sum, radix: 8)
        archive.replaceSubrange(
            block + 148..<block + 156, with: Array((String(repeating: "0", count: 6 - digits.count) + digits + "\0 ").utf8))
    }
    return archive
}

/// A PAX header with one record, for the following member.
func paxMember(_ key: String, _ value: String) -> TarMember {
    let rest = " \(key)=\(value)\n"
    var length = rest.utf8.count + 1
    while "\(length)".utf8.count + rest.utf8.count != length { length += 1 }
    return TarMember(name: "pax", type: "x", content: Array("\(length)\(rest)".utf8))
}

let isRoot = geteuid() == 0

func hasProgram(_ name: String) -> Bool { (try? launch("sh", ["-c", "command -v \(name)"]).status) == 0 }

/// Runs the command in a new terminal. Returns the output of both streams with normal line ends.
func inTerminal(_ arguments: [String]) throws -> (status: Int32, shown: [UInt8]) {
    let command = ([Cfsoci.binary] + arguments).map { "'" + $0.replacing("'", with: "'\\''") + "'" }.joined(separator: " ")
    let result = try launch("script", ["-qec", command, "/dev/null"])
    return (result.status, result.output.filter { $0 != 0x0d })
}
